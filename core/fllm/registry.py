"""Names to objects, imported only when one is chosen."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from fllm.errors import NameConflict, PluginError, UnknownName


class Entry(Struct, frozen=True):
    """A name that the user can pick, and where the object behind it lives."""

    name: str
    target: str
    """``package.module:attribute``; imported only when this entry is chosen."""
    summary: str = ""


class BackendEntry(Entry, frozen=True):
    """A backend, with what the command line must know before it imports it."""

    devices: tuple[str, ...] = ()
    """Kinds of devices that it serves, such as ``("cuda", "cpu")``; none for a backend that only wraps others."""
    isolated: bool = True
    """It runs in a process of its own, unless ``--no-engine-process`` is given."""


class Registration(Struct, frozen=True):
    """An entry, and who offered it."""

    entry: Entry
    plugin: str
    distribution: str


class Registry:
    """The entries of one kind, such as tool parsers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._registrations: dict[str, list[Registration]] = {}

    def add(self, entry: Entry, *, plugin: str, distribution: str) -> None:
        """Register an entry. A name offered twice becomes a conflict that is raised only when it is chosen."""
        self._registrations.setdefault(entry.name, []).append(Registration(entry, plugin, distribution))

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._registrations)

    def __iter__(self) -> Iterator[Registration]:
        for name in self.names():
            yield from self._registrations[name]

    def conflicts(self) -> Iterator[tuple[str, list[Registration]]]:
        """Names offered more than once, and by whom."""
        return ((name, rivals) for name, rivals in self._registrations.items() if len(rivals) > 1)

    def entry(self, name: str) -> Entry:
        """The entry of that name; raises `UnknownName` (with the nearest name) or `NameConflict`."""
        rivals = self._registrations.get(name)
        if not rivals:
            raise UnknownName(self._unknown(name))
        if len(rivals) > 1:
            raise NameConflict(conflict_message(self.kind, name, rivals))
        return rivals[0].entry

    def load(self, name: str) -> Any:
        """Import and return the object behind a name; raises `PluginError` where that fails."""
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            owner = self._registrations[name][0].distribution
            raise PluginError(
                f"the {self.kind} {name!r} of {owner} can't be loaded from {entry.target!r}: {error}"
            ) from error

    def _unknown(self, name: str) -> str:
        names = self.names()
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"there is no {self.kind} {name!r}{hint} (registered: {', '.join(names) or 'none'})"


def conflict_message(kind: str, name: str, rivals: list[Registration]) -> str:
    """What to tell somebody who meets a name that is offered twice."""
    owners = " and ".join(f"{rival.distribution} (plugin {rival.plugin!r})" for rival in rivals)
    return (
        f"the {kind} {name!r} is offered by {owners}; "
        f"leave one out with --disable-plugin {rivals[-1].plugin} or FLLM_DISABLE_PLUGINS={rivals[-1].plugin}"
    )
