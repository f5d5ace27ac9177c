"""Describe plugins and the entries that they register."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from msgspec import Struct

from fllm.errors import UnknownName
from fllm.extras import install_command, missing_modules
from fllm.plugins.discovery import normalize_name
from fllm.plugins.loader import PluginReport, Plugins
from fllm.plugins.options import Option, options_of
from fllm.plugins.registry import (
    BackendEntry,
    DrafterEntry,
    Entry,
    PlacementEntry,
    Registration,
    conflict_message,
)
from fllm_api.cli.plugins.listing import load_status


class Offer(Struct, frozen=True, kw_only=True):
    """One entry of a plugin, which users select by name."""

    kind: str
    name: str
    summary: str
    target: str
    properties: dict[str, Any]
    """Other fields of the entry, such as the devices of a backend or the template markers of a parser."""
    options: list[Option] | None
    """Options of a backend or a placement; ``None`` if the entry does not declare them."""
    conflict: str | None
    """How to resolve a conflict, if another plugin registers the same name."""
    missing: str | None
    """Command that installs the extra that it needs, if that is not installed."""


class PluginDescription(Struct, frozen=True, kw_only=True):
    """One plugin, and those of its entries that match the requested name."""

    plugin: PluginReport
    summary: str
    """Summary of the distribution; empty for a file."""
    status: str
    offers: list[Offer]


def describe(plugins: Plugins, name: str) -> Iterator[PluginDescription]:
    """Yield a description of each plugin that matches the name.

    The name is that of a plugin, a distribution or an entry. Raise `UnknownName`, with a suggestion, if
    nothing matches.
    """
    offers = list(_offers(plugins))
    matched = False
    for report in plugins.reports:
        is_plugin = normalize_name(name) in _names(report)
        entries = [
            offer for plugin, offer in offers if plugin == _key(report) and (is_plugin or offer.name == name)
        ]
        if is_plugin or entries:
            matched = True
            yield PluginDescription(
                plugin=report,
                summary=_summary(report.distribution),
                status=load_status(report),
                offers=entries,
            )
    if not matched:
        raise UnknownName(_unknown(name, plugins, (offer.name for _, offer in offers)))


def _offers(plugins: Plugins) -> Iterator[tuple[tuple[str, str], Offer]]:
    for registry in plugins.registries():
        conflicts = dict(registry.conflicts())
        for each in registry:
            yield (each.distribution, each.plugin), _offer(registry.kind, each, conflicts)


def _offer(kind: str, each: Registration, conflicts: Mapping[str, list[Registration]]) -> Offer:
    entry = each.entry
    options = entry.options if isinstance(entry, BackendEntry | PlacementEntry | DrafterEntry) else None
    fields = [name for name in entry.__struct_fields__ if name not in (*Entry.__struct_fields__, "options")]
    return Offer(
        kind=kind,
        name=entry.name,
        summary=entry.summary,
        target=entry.target,
        properties={name: getattr(entry, name) for name in fields},
        options=None if options is None else options_of(options),
        conflict=conflict_message(kind, entry.name, conflicts[entry.name])
        if entry.name in conflicts
        else None,
        missing=install_command(entry.extra) if entry.extra and missing_modules(entry.extra) else None,
    )


def _key(report: PluginReport) -> tuple[str, str]:
    return report.distribution, report.name


def _names(report: PluginReport) -> set[str]:
    qualified = f"{report.distribution}:{report.name}"
    return {normalize_name(name) for name in (report.name, report.distribution, qualified)}


def _summary(distribution: str) -> str:
    try:
        return str(metadata(distribution).json.get("summary", ""))
    except PackageNotFoundError:
        return ""


def _unknown(name: str, plugins: Plugins, offered: Iterable[str]) -> str:
    names = {*offered, *(known for report in plugins.reports for known in (report.name, report.distribution))}
    matches = difflib.get_close_matches(name, sorted(names), n=1)
    hint = f"; did you mean {matches[0]!r}?" if matches else "; `furiosa-llm plugins` lists all names"
    return f"no plugin, distribution or entry is named {name!r}{hint}"
