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
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy
from msgspec import Struct
from msgspec.structs import replace

from fllm.config import BackendConfig, PluginConfig, PluginOption
from fllm.containment import contained, mapped
from fllm.drafter import DrafterFactory
from fllm.errors import ConfigError, ConfigErrors, PluginError, UserError, format_error
from fllm.interfaces import (
    Backend,
    BackendContext,
    BackendFactory,
    Collector,
    LoadedParser,
    MetricsContext,
    TemplateContext,
)
from fllm.placement import Placement, PlacementContext, PlacementFactory
from fllm.plugin_usage import UsageMeters
from fllm.plugins import hooks, validation
from fllm.plugins.discovery import Candidate, candidates
from fllm.plugins.plugin_options import (
    OptionValue,
    PluginOptions,
    assign,
    declared_options,
    options_for,
    secret_variables,
)
from fllm.plugins.registry import Entry, Registration, Registry, conflict_message
from fllm.plugins.selection import PluginSelection
from fllm.plugins.traceback_location import plugin_frame
from fllm.plugins.validation import (
    check_collectors,
    check_entries,
    check_hooks,
    check_panels,
    check_templates,
    check_version,
)
from fllm.server_description import PagePanel
from fllm.structured_output.interfaces import GrammarFactory
from fllm.values import ChatTemplates

if TYPE_CHECKING:
    from fllm.serving import RoutesContext

T = TypeVar("T")
L = TypeVar("L", bound=LoadedParser)
C = TypeVar("C", bound=Struct)
R = TypeVar("R")

ENGINE_HOOKS = ("fllm_backends", "fllm_grammars", "fllm_drafters")
"""Hooks of plugins that the process of an engine needs."""

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
    failed_at_run_time: bool = False
    """Whether the error is of a request or a collector. Then it may have text of a client in it."""
    disabled: bool = False
    """Whether it is left out by choice."""
    not_allowed: bool = False
    """Whether it is left out because ``--allow-plugin`` does not name it."""
    options: list[OptionValue] = []
    """Options that the plugin declares, with their current values; secrets are hidden."""

    @property
    def title(self) -> str:
        """Name, distribution and version, for messages."""
        return f"{self.name} ({f'{self.distribution} {self.version}'.strip()})"

    def record(self, error: BaseException) -> None:
        """Record why the plugin is not loaded."""
        self.error, self.where = format_error(error), plugin_frame(error)

    def record_run_time(self, message: str) -> None:
        """Record an error of a part of the plugin at run time."""
        self.error, self.failed_at_run_time = message, True


class Plugins:
    """The plugins of one server: registries of their entries, and the hooks that are called later."""

    def __init__(self) -> None:
        self.reports: list[PluginReport] = []
        self.unmatched: list[str] = []
        """Names to disable that match no plugin."""
        self.unmatched_allowed: list[str] = []
        """Names to allow that match no plugin."""
        self.backends: Registry[BackendFactory] = Registry("backend", bind=_bind_backend)
        self.tool_parsers = Registry("tool-call parser", validation.tool_parser, _bind_parser)
        self.reasoning_parsers = Registry("reasoning parser", validation.reasoning_parser, _bind_parser)
        self.grammars: Registry[GrammarFactory] = Registry("grammar backend", bind=_bind_factory)
        self.drafters: Registry[DrafterFactory] = Registry("drafter", bind=_bind_factory)
        self.placements: Registry[PlacementFactory] = Registry("placement", bind=_bind_placement)
        self.commands: Registry[Any] = Registry("command")
        self._named: dict[str, Registry[Any]] = {
            "fllm_backends": self.backends,
            "fllm_placements": self.placements,
            "fllm_tool_parsers": self.tool_parsers,
            "fllm_reasoning_parsers": self.reasoning_parsers,
            "fllm_grammars": self.grammars,
            "fllm_drafters": self.drafters,
            "fllm_commands": self.commands,
        }
        self.config = PluginConfig()
        """With what they were loaded."""
        self.usage = UsageMeters()
        """What the parts of plugins have cost so far."""
        self._options: list[PluginOptions] = []
        """Of each plugin, in the order of the reports."""
        self._unassigned: list[tuple[PluginOption, str]] = []
        """Values that are given to no plugin, with a message each."""
        self._registered: dict[str, tuple[PluginReport, PluginOptions]] = {}
        """By name in pluggy."""
        self._owners: dict[int, PluginReport] = {}
        """Reports of the plugins of collectors, by the id of the collector."""
        self._manager = pluggy.PluginManager("fllm")
        self._manager.add_hookspecs(hooks)

    def __contains__(self, plugin: object) -> bool:
        """Return whether this module or object is registered."""
        return self._manager.is_registered(plugin)

    def chat_templates(self, context: TemplateContext) -> ChatTemplates | None:
        """Return the first result of the resolvers. A `UserError` propagates; other errors are logged."""
        found = self.resolve_chat_templates(context)
        return found and found[1]

    def resolve_chat_templates(self, context: TemplateContext) -> tuple[PluginReport, ChatTemplates] | None:
        """Return the same, with the report of the plugin that has them."""
        results = self._call_each(
            "fllm_chat_template", check_templates, passing=(UserError,), context=context
        )
        found = ((self._registered[name][0], templates) for name, templates in results)
        return next(found, None)

    def collectors(self, context: MetricsContext) -> list[Collector]:
        """Return the collectors of all plugins. A plugin whose hook raises is logged and skipped."""
        results = self._call_each("fllm_collectors", check_collectors, context=context)
        found: list[Collector] = []
        for plugin_name, collectors in results:
            found += collectors
            report, _ = self._registered[plugin_name]
            self._owners |= {id(collector): report for collector in collectors}
        return found

    def page_panels(self) -> list[PagePanel]:
        """Return the panels of all plugins. A plugin with an invalid one, or with a name taken, has none."""
        found: dict[str, PagePanel] = {}
        for _, panels in self._call_each("fllm_page_panels", partial(check_panels, taken=found)):
            found.update({panel.name: panel for panel in panels})
        return [*found.values()]

    def owner_of(self, collector: Collector) -> PluginReport | None:
        """Return the report of the plugin that a collector came from."""
        return self._owners.get(id(collector))

    def routes(
        self,
        check: Callable[[Iterable[Any]], list[Any]],
        context: RoutesContext | None = None,
        on_result: Callable[[PluginReport, bool], None] = lambda *_: None,
    ) -> Iterator[list[Any]]:
        """Yield the route handlers of each plugin. A plugin is skipped if its hook or ``check`` raises.

        ``on_result`` receives the report of each, and whether it was accepted. A `ConfigError` of a hook
        propagates.
        """
        if context is None:
            from fllm.serving import RoutesContext

            context = RoutesContext()
        results = self._call_each(
            "fllm_routes", check, passing=(ConfigError,), context=context, on_result=on_result
        )
        return (handlers for _, handlers in results)

    def registries(self) -> Iterable[Registry[Any]]:
        """Return the registries, one for each named hook."""
        return self._named.values()

    def load(self, candidate: Candidate) -> None:
        """Import, validate and register one plugin. An error is recorded in its report."""
        report, options = self._add(candidate)
        started_at = time.perf_counter()
        # stdout is for output of commands, such as `plugins --json`
        with contained(report.record, base_exceptions=True), contextlib.redirect_stdout(sys.stderr):
            self._register(candidate.load(), report, options)
        report.seconds = time.perf_counter() - started_at
        options.error = report.error

    def leave_out(self, candidate: Candidate, *, not_allowed: bool = False) -> None:
        """Record that a plugin is disabled, or not allowed. It is not imported."""
        report, options = self._add(candidate)
        report.disabled = options.disabled = True
        report.not_allowed = not_allowed

    def read_options(self, given: Iterable[PluginOption]) -> None:
        """Set the options of all plugins, once they are loaded. `check_options` raises what is wrong."""
        self._unassigned = list(assign(given, self._options))
        for report, options in zip(self.reports, self._options, strict=True):
            report.options = options.described()

    def check_options(self, *, allow_missing: bool = False) -> None:
        """Raise `ConfigErrors` if a value has no plugin or is invalid, or if a required one is missing."""
        messages = [message for _, message in self._unassigned]
        _raise(messages, self._options, allow_missing=allow_missing)

    def option_problems(self) -> list[str]:
        """Return a message for each plugin with an invalid or missing option."""
        return [each.problem.message for each in self._options if each.problem is not None]

    def check_engine_options(self) -> None:
        """Raise the same in the process of an engine, for the plugins that it needs and has."""
        _raise([], self._needed_by_engines())

    def command_options(self, name: str) -> PluginOptions | None:
        """Return the options of the plugin of a command, if it has any."""
        chosen = self.commands.registration(name)
        key = (chosen.plugin, chosen.distribution)
        found = next(each for each in self._options if (each.plugin, each.distribution) == key)
        return None if found.kind is None else found

    def check_command_options(self, name: str) -> None:
        """Raise the same for the plugin of a command. Other plugins may have values of a file."""
        given = (message for option, message in self._unassigned if option.source == "command line")
        _raise([*given], filter(None, [self.command_options(name)]))

    def engine_config(self) -> PluginConfig:
        """Return the configuration for the process of an engine.

        It has the options of the plugins that offer backends, grammars or drafters, and no other secrets.
        """
        return replace(self.config, options=options_for(self._needed_by_engines()))

    def _needed_by_engines(self) -> list[PluginOptions]:
        return [
            options
            for report, options in zip(self.reports, self._options, strict=True)
            if not set(report.hooks).isdisjoint(ENGINE_HOOKS)
        ]

    def secret_variables(self) -> Iterator[str]:
        """Yield the names of the environment variables that set secret options."""
        return secret_variables(self._options)

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
        for name in self.unmatched_allowed:
            log.warning("--allow-plugin %s: there is no such plugin (found: %s)", name, names)

    def _add(self, candidate: Candidate) -> tuple[PluginReport, PluginOptions]:
        report = _report(candidate)
        options = PluginOptions(plugin=report.name, distribution=report.distribution)
        self.reports.append(report)
        self._options.append(options)
        return report, options

    def _register(self, plugin: object, report: PluginReport, options: PluginOptions) -> None:
        check_version(plugin)
        if (other := self._manager.get_name(plugin)) is not None:
            raise PluginError(f"it is loaded already, as {other}")
        try:
            name = f"{report.distribution}:{report.name}:{report.source}"
            self._manager.register(plugin, name=name)
            report.hooks = sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or [])
            check_hooks(plugin, report.hooks)
            options.kind = declared_options(plugin)
            offered = {hook: self._entries(hook, plugin) for hook in self._named if hook in report.hooks}
        except BaseException:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise
        options.read()
        self._registered[name] = (report, options)
        for hook, entries in offered.items():
            registry = self._named[hook]
            report.offers[registry.kind] = [entry.name for entry in entries]
            for entry in entries:
                registry.add(
                    entry,
                    plugin=report.name,
                    distribution=report.distribution,
                    on_error=report.record_run_time,
                    options=partial(getattr, options, "value"),
                    meter=self.usage.meter(report.name, registry.kind, entry.name),
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
        context: Struct | None = None,
        on_result: Callable[[PluginReport, bool], None] = lambda *_: None,
    ) -> Iterator[tuple[str, T]]:
        """Yield each plugin's name and checked result. A plugin that raises is logged and skipped."""
        for call in self._calls(hook):
            report, options = self._registered[call.plugin_name]
            own = {} if context is None else {"context": replace(context, options=options.value)}
            checked, is_accepted = None, False
            with contained(partial(self._hook_failed, hook, call.plugin_name), passing=passing):
                result = call.function(*(own[name] for name in call.argnames))
                checked = None if result is None else check(result)
                is_accepted = True
            on_result(report, is_accepted)
            if checked is not None:
                yield call.plugin_name, checked

    def _hook_failed(self, hook: str, plugin_name: str, error: BaseException) -> None:
        log.warning("%s of plugin %s failed: %s", hook, plugin_name, format_error(error))
        report, _ = self._registered[plugin_name]
        report.error = f"{hook} failed: {format_error(error)}"

    def _calls(self, hook: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller.get_hookimpls()[::-1]  # pluggy lists the last to be called first


def load_plugins(config: PluginConfig = PluginConfig()) -> Plugins:  # noqa: B008  (frozen)
    """Find, import, validate and register every plugin: installed ones first, then files of ``--plugin``.

    A broken plugin never raises. Loading is fast: the module of a plugin names its parts and imports none.
    """
    plugins = Plugins()
    plugins.config = config
    selection = PluginSelection(config)
    for candidate in candidates(config):
        if selection.allows(candidate) and not selection.disables(candidate):
            plugins.load(candidate)
        else:
            plugins.leave_out(candidate, not_allowed=not selection.disables(candidate))
    plugins.unmatched = selection.unmatched_disabled
    plugins.unmatched_allowed = selection.unmatched_allowed
    plugins.read_options(config.options)
    return plugins


def _report(candidate: Candidate) -> PluginReport:
    return PluginReport(
        name=candidate.name,
        distribution=candidate.distribution,
        version=candidate.version,
        source=candidate.source,
    )


def _raise(messages: list[str], plugins: Iterable[PluginOptions], *, allow_missing: bool = False) -> None:
    """Raise `ConfigErrors` with these messages and the problems of the plugins, if there are any."""
    problems = filter(None, (each.problem for each in plugins))
    messages += [each.message for each in problems if not (each.is_missing and allow_missing)]
    if messages:
        raise ConfigErrors(messages)


def _bind_backend(factory: BackendFactory, registration: Registration) -> BackendFactory:
    options = registration.options()
    if options is None:
        return factory

    def create(config: BackendConfig, context: BackendContext) -> Backend:
        return factory(config, replace(context, options=options))

    return create


def _bind_parser(parser: L, registration: Registration) -> L:
    return replace(parser, options=registration.options(), meter=registration.meter)


def _bind_factory(factory: Callable[[C], R], registration: Registration) -> Callable[[C], R]:
    options = registration.options()
    if options is None:
        return factory
    return lambda context: factory(replace(context, options=options))


def _bind_placement(factory: PlacementFactory, registration: Registration) -> PlacementFactory:
    options = registration.options()
    if options is None:
        return factory

    def create(context: PlacementContext) -> Placement:
        return factory(replace(context, plugin_options=options))

    return create
