"""The list of all plugins, as ``furiosa-llm plugins --json`` prints it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from fllm.extras import missing_modules
from fllm.plugin_usage import PluginUsage
from fllm.plugins.loader import PluginReport, Plugins
from fllm.plugins.registry import conflict_message

PRIVATE_ERROR = "it failed; the log and clients with an admin key have the reason"
"""What other clients see of an error at run time."""


class Listing(Struct, frozen=True):
    """All plugins, and what is wrong with their names."""

    plugins: list[PluginReport]
    conflicts: list[str]
    unmatched: list[str]
    """Names of ``--disable-plugin`` that match no plugin."""
    unmatched_allowed: list[str]
    """The same of ``--allow-plugin``."""
    missing_extras: dict[str, list[str]]
    """Extras that are not installed, each with the names of the entries that need it."""
    usage: list[PluginUsage] | UnsetType = UNSET
    """What the parts of plugins have cost, of a server that has used them."""


def list_plugins(plugins: Plugins) -> Listing:
    """Return the list."""
    conflicts = list(conflict_messages(plugins))
    return Listing(
        plugins.reports,
        conflicts,
        plugins.unmatched,
        plugins.unmatched_allowed,
        _missing_extras(plugins),
        plugins.usage.used() or UNSET,
    )


def without_texts(listing: Listing) -> Listing:
    """Return the list for a client that may not see requests of others: an error may have text of them."""
    return replace(
        listing,
        plugins=[
            replace(each, error=PRIVATE_ERROR) if each.failed_at_run_time else each
            for each in listing.plugins
        ],
    )


def _missing_extras(plugins: Plugins) -> dict[str, list[str]]:
    entries: dict[str, list[str]] = {}
    for registry in plugins.registries():
        for registration in registry:
            if extra := registration.entry.extra:
                entries.setdefault(extra, []).append(registration.entry.name)
    return {extra: names for extra, names in entries.items() if missing_modules(extra)}


def conflict_messages(plugins: Plugins) -> Iterator[str]:
    """Yield a message for each name that several plugins register."""
    for registry in plugins.registries():
        for name, registrations in registry.conflicts():
            yield conflict_message(registry.kind, name, registrations)
