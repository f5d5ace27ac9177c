"""Finding plugins and keeping the broken ones apart.

pluggy's own entry-point loader lets one plugin that fails to import stop all after it, drops a second entry point of the
same name in silence, and accepts a mistyped hook. Here each plugin has a ``try`` of its own, from its import to the first
call of its hooks; a broken one is reported and left out.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from msgspec import Struct

from fllm import hooks
from fllm.config import PluginConfig
from fllm.errors import PluginError
from fllm.interfaces import ChatTemplates, Collector, MetricsContext, TemplateContext
from fllm.registry import Entry, Registry, conflict_message

GROUP = "fllm"
"""The entry-point group."""

log = logging.getLogger("fllm.plugins")

NAMED_HOOKS = {
    "fllm_backends": "backend",
    "fllm_tool_parsers": "tool-call parser",
    "fllm_reasoning_parsers": "reasoning parser",
    "fllm_commands": "command",
}


class PluginReport(Struct, kw_only=True):
    """What became of one plugin."""

    name: str
    distribution: str
    version: str
    source: str
    """The module or file that it was loaded from."""
    hooks: list[str] = []
    error: str | None = None
    """Why it is left out, or which part of it is."""
    disabled: bool = False


class Plugins:
    """The plugins of one server: registries of what they offer, and the hooks that are called later."""

    def __init__(self) -> None:
        self.reports: list[PluginReport] = []
        self.backends = Registry("backend")
        self.tool_parsers = Registry("tool-call parser")
        self.reasoning_parsers = Registry("reasoning parser")
        self.commands = Registry("command")
        self._manager = pluggy.PluginManager("fllm")
        self._manager.add_hookspecs(hooks)

    def chat_templates(self, context: TemplateContext) -> ChatTemplates | None:
        """Ask the resolvers in turn; raises what the chosen resolver raises, since the user asked for it."""
        answer: ChatTemplates | None = self._manager.hook.fllm_chat_template(context=context)
        return answer

    def collectors(self, context: MetricsContext) -> list[Collector]:
        """All collectors of all plugins whose hook does not raise."""
        return self._told("fllm_collectors", context=context)

    def routes(self) -> list[Any]:
        """All route handlers of all plugins whose hook does not raise."""
        return self._told("fllm_routes")

    def add(self, module: object, report: PluginReport) -> None:
        """Validate and register one plugin, and hear what it names; what fails is written into its report."""
        self.reports.append(report)
        try:
            self._check_version(module)
            self._register(module, report)
            for hook, kind in NAMED_HOOKS.items():
                for entry in self._yielded(hook, module):
                    self._registry(kind).add(entry, plugin=report.name, distribution=report.distribution)
        except Exception as error:  # a stranger's code: anything may come
            self._leave_out(module, report, error)

    def warn(self) -> None:
        """Say in the log what is wrong: one line for each broken plugin and each name that is offered twice."""
        for report in self.reports:
            if report.error:
                log.warning(
                    "plugin %s (%s %s) is left out: %s",
                    report.name,
                    report.distribution,
                    report.version,
                    report.error,
                )
        for registry in (self.backends, self.tool_parsers, self.reasoning_parsers, self.commands):
            for name, rivals in registry.conflicts():
                log.warning("%s", conflict_message(registry.kind, name, rivals))

    def _registry(self, kind: str) -> Registry:
        registries = (self.backends, self.tool_parsers, self.reasoning_parsers, self.commands)
        return next(registry for registry in registries if registry.kind == kind)

    def _check_version(self, module: object) -> None:
        wanted = getattr(module, "FLLM_API_VERSION", hooks.API_VERSION)
        if wanted > hooks.API_VERSION:
            raise PluginError(
                f"it needs version {wanted} of the plugin interface and this server has {hooks.API_VERSION}; "
                "upgrade furiosa-llm-server"
            )

    def _register(self, module: object, report: PluginReport) -> None:
        self._manager.register(module, name=f"{report.distribution}:{report.name}:{report.source}")
        callers = self._manager.get_hookcallers(module) or []
        report.hooks = sorted(caller.name for caller in callers)
        known = {name for name in vars(hooks) if name.startswith("fllm_")}
        for name in report.hooks:
            if name not in known:
                raise PluginError(f"it implements {name!r}, which is no hook (hooks: {', '.join(sorted(known))})")
        unmarked = sorted(known & set(dir(module)) - set(report.hooks))
        if unmarked:
            raise PluginError(f"{unmarked[0]!r} is not marked with @fllm.hookimpl")
        if not report.hooks:
            raise PluginError("it implements no hook")

    def _yielded(self, hook: str, module: object) -> list[Entry]:
        caller = self._manager.subset_hook_caller(hook, [p for p in self._manager.get_plugins() if p is not module])
        entries = [entry for answer in caller() for entry in answer]
        for entry in entries:
            if not isinstance(entry, Entry) or ":" not in entry.target:
                raise PluginError(f"{hook} yielded {entry!r}, not Entry(name, 'module:attribute', summary)")
        return entries

    def _told(self, hook: str, **arguments: object) -> list[Any]:
        heard: list[Any] = []
        for plugin in list(self._manager.get_plugins()):
            others = [other for other in self._manager.get_plugins() if other is not plugin]
            try:
                for answer in self._manager.subset_hook_caller(hook, others)(**arguments):
                    heard.extend(answer)
            except Exception as error:  # a stranger's code: the others must still be heard
                log.warning("%s of plugin %s raised: %s", hook, self._manager.get_name(plugin), describe(error))
        return heard

    def _leave_out(self, module: object, report: PluginReport, error: Exception) -> None:
        report.error = describe(error)
        if self._manager.is_registered(module):
            self._manager.unregister(module)


def load_plugins(config: PluginConfig = PluginConfig()) -> Plugins:  # noqa: B008  (frozen)
    """Find, import, validate and register every plugin: installed ones first, then the files of ``--plugin``.

    Never raises for a plugin's sake. Loading is cheap: a plugin's module names its parts without importing them.
    """
    plugins = Plugins()
    for point, distribution, version in sorted(_entry_points(), key=lambda found: (found[1], found[0].name)):
        report = PluginReport(
            name=point.name, distribution=distribution, version=version, source=point.value
        )
        _load(plugins, report, point.load, config)
    for path in config.paths:
        file = Path(path)
        report = PluginReport(name=file.stem, distribution=str(file), version="", source=str(file))
        _load(plugins, report, lambda file=file: _import_file(file), config)  # type: ignore[misc]
    return plugins


def describe(error: BaseException) -> str:
    """An error in one line, for a report."""
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _load(plugins: Plugins, report: PluginReport, load: Callable[[], object], config: PluginConfig) -> None:
    if {report.name, report.distribution, f"{report.distribution}:{report.name}"} & set(config.disabled):
        report.disabled = True
        plugins.reports.append(report)
        return
    try:
        module = load()
    except (Exception, SystemExit) as error:  # a stranger's code: anything may come
        report.error = describe(error)
        plugins.reports.append(report)
        return
    plugins.add(module, report)


def _entry_points() -> Iterable[tuple[EntryPoint, str, str]]:
    seen: set[str] = set()
    for distribution in distributions():
        points = [point for point in distribution.entry_points if point.group == GROUP]
        if not points:
            continue  # reading the name parses the metadata: 1 ms each, and there may be hundreds
        name = distribution.metadata["Name"]
        if name in seen:
            continue  # an editable install of a project that also lies on sys.path is found twice
        seen.add(name)
        for point in points:
            yield point, name, distribution.version


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise PluginError(f"there is no file {str(file)!r}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{str(file)!r} is not a Python file")
    loaded = sys.modules.get(file.stem)
    if loaded is not None and loaded.__file__ != str(file):
        raise PluginError(f"a module named {file.stem!r} is loaded already; rename the file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # so that entries can name it as their target
    spec.loader.exec_module(module)
    return module
