"""The list of all plugins, as ``furiosa-llm plugins --json`` prints it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from fllm.plugins.loader import PluginReport, Plugins
from fllm.plugins.registry import conflict_message


class Listing(Struct, frozen=True):
    """All plugins, and what is wrong with their names."""

    plugins: list[PluginReport]
    conflicts: list[str]
    unmatched: list[str]
    """Names of ``--disable-plugin`` that match no plugin."""
    unmatched_allowed: list[str]
    """The same of ``--allow-plugin``."""


def list_plugins(plugins: Plugins) -> Listing:
    """Return the list."""
    conflicts = list(conflict_messages(plugins))
    return Listing(plugins.reports, conflicts, plugins.unmatched, plugins.unmatched_allowed)


def conflict_messages(plugins: Plugins) -> Iterator[str]:
    """Yield a message for each name that several plugins register."""
    for registry in plugins.registries():
        for name, registrations in registry.conflicts():
            yield conflict_message(registry.kind, name, registrations)
