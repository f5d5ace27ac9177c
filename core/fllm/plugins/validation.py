"""Checks of a plugin; each error message says in one line what its author has to change."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from inspect import isroutine
from pathlib import Path

from msgspec import Struct

from fllm.errors import PluginError, format_error
from fllm.interfaces import (
    Collector,
    ConstrainsOutput,
    HasToolFormat,
    HasVisibleTokens,
    LimitsReasoning,
    LoadedParser,
    LoadedToolParser,
    MakesCallIds,
    ParserFactory,
)
from fllm.plugins import hooks
from fllm.plugins.options import options_of
from fllm.plugins.parser_detection import AUTO, NO_PARSER, ParserEntry
from fllm.plugins.registry import BackendEntry, DrafterEntry, Entry, PlacementEntry, ReportError
from fllm.server_description import PagePanel
from fllm.structured_output.tool_format import ToolFormat
from fllm.values import ChatTemplates

HOOKS = sorted(name for name in vars(hooks) if name.startswith("fllm_"))
"""Names of all hooks. No other function of a plugin may have the prefix."""

ENTRIES: Mapping[str, type[Entry]] = {
    "fllm_backends": BackendEntry,
    "fllm_placements": PlacementEntry,
    "fllm_drafters": DrafterEntry,
}
"""Types of entries that a hook may yield; of other named hooks: `Entry`."""

NAME = re.compile(r"[\w.-]+")
PANEL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TARGET = re.compile(r"[\w.-]+:[\w.]+")


def check_version(plugin: object) -> None:
    """Raise `PluginError` if a plugin needs a newer plugin API."""
    wanted = getattr(plugin, "FLLM_API_VERSION", hooks.API_VERSION)
    if not isinstance(wanted, int):
        raise PluginError(f"FLLM_API_VERSION must be a whole number, not {wanted!r}")
    if wanted > hooks.API_VERSION:
        raise PluginError(
            f"it needs version {wanted} of the plugin API, and this server has version {hooks.API_VERSION}; "
            "upgrade furiosa-llm-server"
        )


def check_hooks(plugin: object, implemented: Sequence[str]) -> None:
    """Raise `PluginError` for a misspelled hook, a missing marker, or a plugin without any hook."""
    meant = [name for name in dir(plugin) if name.startswith("fllm_") and isroutine(getattr(plugin, name))]
    for name in [*implemented, *meant]:
        if name not in HOOKS:
            near = difflib.get_close_matches(name, HOOKS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"hooks: {', '.join(HOOKS)}"
            raise PluginError(f"it implements {name!r}, which is not a hook; {hint}")
        if name not in implemented:
            raise PluginError(f"{name!r} is not marked with @fllm.hookimpl")
    if not implemented:
        raise PluginError(f"it implements no hook (hooks: {', '.join(HOOKS)})")


def check_entries(hook: str, entries: Iterable[object]) -> None:
    """Raise `PluginError` for objects that a named hook may not yield. Names must be unique in a plugin."""
    wanted = ENTRIES.get(hook, Entry)
    seen: set[str] = set()
    for entry in entries:
        if (
            not isinstance(entry, wanted)
            or not _matches(NAME, entry.name)
            or not _matches(TARGET, entry.target)
        ):
            raise PluginError(
                f"{hook} yielded {entry!r}, not {wanted.__name__}(name, 'module:attribute', summary)"
            )
        if isinstance(entry, BackendEntry) and not _are_strings(entry.devices):
            raise PluginError(f"{hook}: devices of {entry.name!r} must be a tuple, such as ('cuda', 'cpu')")
        if isinstance(entry, BackendEntry | PlacementEntry | DrafterEntry) and entry.options is not None:
            _check_options(f"{hook}: options of {entry.name!r}", entry.options)
        if isinstance(entry, ParserEntry):
            _check_parser(hook, entry)
        if entry.name in seen:
            raise PluginError(f"{hook} yielded the name {entry.name!r} twice")
        seen.add(entry.name)


def check_templates(templates: object) -> ChatTemplates:
    """Return the templates. Raise `TypeError` unless they map names to Jinja sources."""
    if not isinstance(templates, Mapping) or not _are_strings((*templates.keys(), *templates.values())):
        raise TypeError(f"it must return a mapping of names to templates, not {type(templates).__name__}")
    return templates


def check_collectors(collectors: Iterable[object]) -> list[Collector]:
    """Return the collectors; raise `TypeError` if one is not a `fllm.Collector`."""
    found: list[Collector] = []
    for collector in collectors:
        if not isinstance(collector, Collector):
            raise TypeError(f"{type(collector).__name__} is not a subclass of fllm.Collector")
        found.append(collector)
    return found


def check_panels(panels: Iterable[object], taken: Container[str] = ()) -> list[PagePanel]:
    """Return the panels. Raise `TypeError` or `ValueError` for one that the page can't show."""
    found: list[PagePanel] = []
    names: set[str] = set()
    for panel in panels:
        if not isinstance(panel, PagePanel):
            raise TypeError(f"{panel!r} is not a fllm.PagePanel")
        if not _matches(PANEL_NAME, panel.name):
            raise ValueError(f"the name {panel.name!r} of a panel must match {PANEL_NAME.pattern}")
        if panel.name in names or panel.name in taken:
            raise ValueError(f"there is a panel {panel.name!r} already")
        if not isinstance(panel.title, str) or not panel.title.strip():
            raise ValueError(f"the panel {panel.name!r} needs a title")
        if not isinstance(panel.script, str | Path) or not panel.read().strip():
            raise ValueError(f"the panel {panel.name!r} needs a script: its text, or a Path")
        names.add(panel.name)
        found.append(panel)
    return found


def _unreported(error: BaseException) -> BaseException:
    return error


def reasoning_parser(
    factory: ParserFactory, name: str = "", report: ReportError = _unreported
) -> LoadedParser:
    """Return a reasoning parser with its abilities. Raise `PluginError` if one has the wrong type."""
    declared: object = factory  # so that isinstance does not narrow the factory itself
    constrain: object = declared.constrain_output if isinstance(declared, ConstrainsOutput) else None
    limit: object = declared.limit_reasoning if isinstance(declared, LimitsReasoning) else None
    for ability, method in (("constrain_output", constrain), ("limit_reasoning", limit)):
        if method is not None and not callable(method):
            raise PluginError(f"{ability} must be a method, not {method!r}")
    return LoadedParser(factory=factory, name=name, visible_tokens=_visible_tokens(factory), report=report)


def tool_parser(
    factory: ParserFactory, name: str = "", report: ReportError = _unreported
) -> LoadedToolParser:
    """Return a tool-call parser with its abilities. Raise `PluginError` if one has the wrong type."""
    declared: object = factory
    tool_format: object = declared.tool_format if isinstance(declared, HasToolFormat) else None
    if tool_format is not None and not isinstance(tool_format, ToolFormat):
        raise PluginError(f"tool_format must be a fllm.parsing.ToolFormat, not {tool_format!r}")
    new_call_id: object = declared.new_call_id if isinstance(declared, MakesCallIds) else None
    if new_call_id is not None and not callable(new_call_id):
        raise PluginError(f"new_call_id must be a static method that returns a str, not {new_call_id!r}")
    return LoadedToolParser(
        factory=factory,
        name=name,
        report=report,
        visible_tokens=_visible_tokens(factory),
        tool_format=tool_format,
        new_call_id=new_call_id,
    )


def _visible_tokens(factory: ParserFactory) -> tuple[str, ...]:
    tokens: object = factory.visible_tokens if isinstance(factory, HasVisibleTokens) else ()
    if isinstance(tokens, Iterable) and not isinstance(tokens, str) and _are_strings(found := tuple(tokens)):
        return found
    raise PluginError(f"visible_tokens must be a sequence of str, not {tokens!r}")


def _check_parser(hook: str, entry: ParserEntry) -> None:
    if entry.name in (AUTO, NO_PARSER):
        raise PluginError(
            f"{hook}: a parser may not be named {entry.name!r}: "
            f"{AUTO!r} selects the parser that fits the model, {NO_PARSER!r} selects none"
        )
    for field in ("template_markers", "excluded_markers", "required_tokens"):
        if not _are_markers(getattr(entry, field)):
            raise PluginError(f"{hook}: {field} of {entry.name!r} must be a tuple of non-empty texts")


def _check_options(where: str, kind: object) -> None:
    if not isinstance(kind, type) or not issubclass(kind, Struct):
        raise PluginError(f"{where} must be a class derived from msgspec.Struct, not {kind!r}")
    try:
        options_of(kind)
    except (TypeError, NameError) as error:  # annotations that are invalid or cannot be resolved
        raise PluginError(f"{where}: {format_error(error)}") from error


def _matches(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def _are_markers(values: object) -> bool:
    """Return whether these are texts or tuples of texts. An empty text would be in every template."""
    if not isinstance(values, tuple):
        return False
    texts = [text for value in values for text in (value if isinstance(value, tuple) else (value,))]
    return all(isinstance(text, str) and text for text in texts) and () not in values


def _are_strings(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)
