"""Loads and validates plugins, and leaves out broken ones.

In pluggy's own entry-point loader, one plugin that fails to import stops all others, a second entry point of
the same name is dropped silently, and a misspelled hook is accepted. Here each plugin is loaded separately,
from its import to the first call of its hooks. A broken plugin is reported and left out as a whole.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar, cast

import pluggy
from msgspec import Struct

from fllm.config import PluginConfig
from fllm.containment import contained, mapped
from fllm.errors import PluginError, UserError, format_error
from fllm.interfaces import BackendFactory, Collector, MetricsContext, TemplateContext
from fllm.placement import PlacementFactory
from fllm.plugins import hooks, validation
from fllm.plugins.discovery import Candidate, from_file, installed, normalize_name
from fllm.plugins.registry import Entry, Registry, conflict_message
from fllm.plugins.traceback_location import plugin_frame
from fllm.plugins.validation import (
    check_collectors,
    check_entries,
    check_hooks,
    check_templates,
    check_version,
)
from fllm.structured_output.interfaces import GrammarFactory
from fllm.values import ChatTemplates

T = TypeVar("T")

log = logging.getLogger("fllm.plugins")


class PluginReport(Struct, kw_only=True):
    """Result of loading one plugin."""

    name: str
    distribution: str
    version: str
    source: str
    """Module or file that the plugin was loaded from."""
    hooks: list[str] = []
    offers: dict[str, list[str]] = {}
    """Names that the plugin registered, by kind."""
    seconds: float = 0.0
    """Loading time. A plugin should name its parts and import none of them."""
    error: str | None = None
    """Reason why the plugin is left out, or its latest error after the server has started."""
    where: str | None = None
    """``file:line`` of the plugin's code that raised the error."""
    disabled: bool = False

    @property
    def title(self) -> str:
        """Name, distribution and version, for messages."""
        return f"{self.name} ({f'{self.distribution} {self.version}'.strip()})"

    def record(self, error: BaseException) -> None:
        """Record why the plugin is not loaded."""
        self.error, self.where = format_error(error), plugin_frame(error)

    def record_run_time(self, message: str) -> None:
        """Record an error of a part of the plugin at run time."""
        self.error = message


class Plugins:
    """The plugins of one server: registries of their entries, and the hooks that are called later."""

    def __init__(self) -> None:
        self.reports: list[PluginReport] = []
        self.unmatched: list[str] = []
        """Names to disable that match no plugin."""
        self.backends: Registry[BackendFactory] = Registry("backend")
        self.tool_parsers = Registry("tool-call parser", validation.tool_parser)
        self.reasoning_parsers = Registry("reasoning parser", validation.reasoning_parser)
        self.grammars: Registry[GrammarFactory] = Registry("grammar backend")
        self.placements: Registry[PlacementFactory] = Registry("placement")
        self.commands: Registry[Any] = Registry("command")
        self._named: dict[str, Registry[Any]] = {
            "fllm_backends": self.backends,
            "fllm_placements": self.placements,
            "fllm_tool_parsers": self.tool_parsers,
            "fllm_reasoning_parsers": self.reasoning_parsers,
            "fllm_grammars": self.grammars,
            "fllm_commands": self.commands,
        }
        self._registered: dict[str, PluginReport] = {}
        self._owners: dict[int, PluginReport] = {}
        """Reports of the plugins of collectors, by the id of the collector."""
        self._manager = pluggy.PluginManager("fllm")
        self._manager.add_hookspecs(hooks)

    def __contains__(self, plugin: object) -> bool:
        """Return whether this module or object is registered."""
        return self._manager.is_registered(plugin)

    def chat_templates(self, context: TemplateContext) -> ChatTemplates | None:
        """Return the first result of the resolvers. A `UserError` propagates; other errors are logged."""
        results = self._call_each(
            "fllm_chat_template", check_templates, passing=(UserError,), context=context
        )
        return next((templates for _, templates in results), None)

    def collectors(self, context: MetricsContext) -> list[Collector]:
        """Return the collectors of all plugins. A plugin whose hook raises is logged and skipped."""
        results = self._call_each("fllm_collectors", check_collectors, context=context)
        found: list[Collector] = []
        for plugin_name, collectors in results:
            found += collectors
            self._owners |= {id(collector): self._registered[plugin_name] for collector in collectors}
        return found

    def owner_of(self, collector: Collector) -> PluginReport | None:
        """Return the report of the plugin that a collector came from."""
        return self._owners.get(id(collector))

    def routes(self, check: Callable[[Iterable[Any]], list[Any]]) -> Iterator[list[Any]]:
        """Yield the route handlers of each plugin. A plugin is skipped if its hook or ``check`` raises."""
        return (handlers for _, handlers in self._call_each("fllm_routes", check))

    def registries(self) -> Iterable[Registry[Any]]:
        """Return the registries, one for each named hook."""
        return self._named.values()

    def load(self, candidate: Candidate) -> None:
        """Import, validate and register one plugin. An error is recorded in its report."""
        report = _report(candidate)
        self.reports.append(report)
        started_at = time.perf_counter()
        # stdout is for output of commands, such as `plugins --json`
        with contained(report.record, base_exceptions=True), contextlib.redirect_stdout(sys.stderr):
            self._register(candidate.load(), report)
        report.seconds = time.perf_counter() - started_at

    def warn(self) -> None:
        """Log a line for each broken plugin, each name conflict, and each disabled name without a plugin."""
        for report in self.reports:
            if report.error:
                log.warning("plugin %s is left out: %s", report.title, report.error)
        for registry in self.registries():
            for name, rivals in registry.conflicts():
                log.warning("%s", conflict_message(registry.kind, name, rivals))
        names = ", ".join(report.name for report in self.reports)
        for name in self.unmatched:
            log.warning("--disable-plugin %s: there is no such plugin (found: %s)", name, names)

    def _register(self, plugin: object, report: PluginReport) -> None:
        check_version(plugin)
        if (other := self._manager.get_name(plugin)) is not None:
            raise PluginError(f"it is loaded already, as {other}")
        try:
            name = f"{report.distribution}:{report.name}:{report.source}"
            self._manager.register(plugin, name=name)
            report.hooks = sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or [])
            check_hooks(plugin, report.hooks)
            offered = {hook: self._entries(hook, plugin) for hook in self._named if hook in report.hooks}
        except BaseException:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise
        self._registered[name] = report
        for hook, entries in offered.items():
            registry = self._named[hook]
            report.offers[registry.kind] = [entry.name for entry in entries]
            for entry in entries:
                registry.add(
                    entry,
                    plugin=report.name,
                    distribution=report.distribution,
                    on_error=report.record_run_time,
                )

    def _entries(self, hook: str, plugin: object) -> list[Entry]:
        """Return all entries of one plugin, which are registered later: if one fails, none is registered."""
        calls = [call for call in self._calls(hook) if call.plugin is plugin]
        with mapped(lambda error: PluginError(f"{hook} raised {format_error(error)}")):
            entries = [entry for call in calls for entry in cast("Iterable[Any]", call.function())]
        check_entries(hook, entries)
        return entries

    def _call_each(
        self,
        hook: str,
        check: Callable[[Any], T],
        *,
        passing: tuple[type[Exception], ...] = (),
        **arguments: object,
    ) -> Iterator[tuple[str, T]]:
        """Yield each plugin's name and checked result. A plugin that raises is logged and skipped."""
        for call in self._calls(hook):
            checked = None
            with contained(partial(self._hook_failed, hook, call.plugin_name), passing=passing):
                result = call.function(*(arguments[name] for name in call.argnames))
                checked = None if result is None else check(result)
            if checked is not None:
                yield call.plugin_name, checked

    def _hook_failed(self, hook: str, plugin_name: str, error: BaseException) -> None:
        log.warning("%s of plugin %s failed: %s", hook, plugin_name, format_error(error))
        self._registered[plugin_name].error = f"{hook} failed: {format_error(error)}"

    def _calls(self, hook: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller.get_hookimpls()[::-1]  # pluggy lists the last to be called first


def load_plugins(config: PluginConfig = PluginConfig()) -> Plugins:  # noqa: B008  (frozen)
    """Find, import, validate and register every plugin: installed ones first, then files of ``--plugin``.

    A broken plugin never raises. Loading is fast: the module of a plugin names its parts and imports none.
    """
    plugins = Plugins()
    disabled = {normalize_name(name): name for name in config.disabled}
    matched: set[str] = set()
    for candidate in [*installed(), *map(from_file, dict.fromkeys(config.paths))]:
        if hit := candidate.names & disabled.keys():
            matched |= hit
            plugins.reports.append(_report(candidate, disabled=True))
        else:
            plugins.load(candidate)
    plugins.unmatched = [name for key, name in disabled.items() if key not in matched]
    return plugins


def _report(candidate: Candidate, *, disabled: bool = False) -> PluginReport:
    return PluginReport(
        name=candidate.name,
        distribution=candidate.distribution,
        version=candidate.version,
        source=candidate.source,
        disabled=disabled,
    )
