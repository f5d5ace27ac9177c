"""All that can be known of a plugin, and of the names that it offers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from msgspec import Struct

from fllm.errors import UnknownName
from fllm.plugins.backend_options import Option, options_of
from fllm.plugins.discovery import normal
from fllm.plugins.loader import PluginReport, Plugins
from fllm.plugins.registry import BackendEntry, Entry, Registration, conflict_message
from fllm_api.cli.plugins.listing import status


class Offer(Struct, frozen=True, kw_only=True):
    """One name that the user can pick."""

    kind: str
    name: str
    summary: str
    target: str
    properties: dict[str, Any]
    """What its entry says beside that: a backend's devices, what a parser's models are known by."""
    options: list[Option] | None
    """``--backend-option``; ``None`` where the entry declares none."""
    conflict: str | None
    """What to do where another plugin offers the name too."""


class PluginDescription(Struct, frozen=True, kw_only=True):
    """One plugin, and what was asked for of what it offers."""

    plugin: PluginReport
    summary: str
    """Of its distribution; empty for a file."""
    status: str
    offers: list[Offer]


def describe(plugins: Plugins, name: str) -> Iterator[PluginDescription]:
    """Each plugin that the name fits; raises `UnknownName` with the nearest where there is none."""
    offers = list(_offers(plugins))
    fitting = False
    for report in plugins.reports:
        whole = normal(name) in _names(report)
        own = [offer for whose, offer in offers if whose == _key(report) and (whole or offer.name == name)]
        if whole or own:
            fitting = True
            yield PluginDescription(
                plugin=report, summary=_summary(report.distribution), status=status(report), offers=own
            )
    if not fitting:
        raise UnknownName(_unknown(name, plugins, (offer.name for _, offer in offers)))


def _offers(plugins: Plugins) -> Iterator[tuple[tuple[str, str], Offer]]:
    for registry in plugins.registries():
        rivals = dict(registry.conflicts())
        for each in registry:
            yield (each.distribution, each.plugin), _offer(registry.kind, each, rivals)


def _offer(kind: str, each: Registration, rivals: Mapping[str, list[Registration]]) -> Offer:
    entry = each.entry
    options = entry.options if isinstance(entry, BackendEntry) else None
    own = [name for name in entry.__struct_fields__ if name not in (*Entry.__struct_fields__, "options")]
    return Offer(
        kind=kind,
        name=entry.name,
        summary=entry.summary,
        target=entry.target,
        properties={name: getattr(entry, name) for name in own},
        options=None if options is None else options_of(options),
        conflict=conflict_message(kind, entry.name, rivals[entry.name]) if entry.name in rivals else None,
    )


def _key(report: PluginReport) -> tuple[str, str]:
    return report.distribution, report.name


def _names(report: PluginReport) -> set[str]:
    whole = f"{report.distribution}:{report.name}"
    return {normal(name) for name in (report.name, report.distribution, whole)}


def _summary(distribution: str) -> str:
    try:
        return str(metadata(distribution).json.get("summary", ""))
    except PackageNotFoundError:
        return ""


def _unknown(name: str, plugins: Plugins, offered: Iterable[str]) -> str:
    names = {*offered, *(known for report in plugins.reports for known in (report.name, report.distribution))}
    near = difflib.get_close_matches(name, sorted(names), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; `furiosa-llm plugins` shows all"
    return f"no plugin, and nothing that one offers, is called {name!r}{hint}"
