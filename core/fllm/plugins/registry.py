"""Registries of named objects, which are imported only when one is chosen."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Generic, TypeVar

from msgspec import Struct, field

from fllm.containment import mapped
from fllm.errors import NameConflict, PluginError, UnknownName, format_error
from fllm.extras import missing_extra, require_extra
from fllm.plugin_usage import UsageMeter

T = TypeVar("T")
MIN_SIMILARITY = 0.62
"""Similarity of a suggested name. At 0.6, difflib's own, ``openai`` is suggested for ``nope``."""
ReportError = Callable[[BaseException], BaseException]
"""Reports an error of a loaded object, and returns the error with a note that names the plugin."""


class _Requirement(Struct, frozen=True, kw_only=True):
    extra: str = ""
    """The extra of furiosa-llm-server that it needs, such as ``torch``."""


class Entry(_Requirement, frozen=True):
    """A name that the user can choose, and the location of its object."""

    name: str
    target: str
    """``package.module:attribute``; imported only when this entry is chosen."""
    summary: str = ""


class BackendEntry(Entry, frozen=True):
    """A backend, with the properties that the command line needs before it imports it."""

    devices: tuple[str, ...] = ()
    """Kinds of devices that it serves, such as ``("cuda", "cpu")``; empty if it only wraps other backends."""
    isolated: bool = True
    """Whether it runs in its own process, unless ``--no-engine-process`` is given."""
    options: type[Struct] | None = None
    """Type of its ``--backend-option`` values, read with `fllm.backend_options`; ``None``: any value."""
    divides_weights: bool = False
    """Whether it serves a `fllm.BackendConfig.tensor_parallel_size` other than 1."""


class PlacementEntry(Entry, frozen=True):
    """A placement, with the options that the command line checks before it imports it."""

    options: type[Struct] | None = None
    """Type of its ``--placement-option`` values, read with `fllm.placement_options`; ``None``: any value."""


class DrafterEntry(Entry, frozen=True):
    """A drafter, with the fields that the command line checks before it imports it."""

    options: type[Struct] | None = None
    """Type of its own fields of ``--speculative-config``, read with `fllm.drafter_options`; ``None``: any."""


class Registration(Struct, frozen=True):
    """An entry, with the plugin and distribution that offer it."""

    entry: Entry
    plugin: str
    distribution: str
    on_error: Callable[[str], None] = lambda message: None  # noqa: ARG005
    """Receives a line about each error of the object at run time."""
    options: Callable[[], Any] = lambda: None
    """Returns the options of the plugin."""
    meter: UsageMeter = field(default_factory=UsageMeter)
    """Counts the usage of the object."""


def _unbound(loaded: T, registration: Registration) -> T:  # noqa: ARG001
    return loaded


class Registry(Generic[T]):
    """The entries of one kind, such as tool-call parsers; ``T`` is the type of what they load."""

    def __init__(
        self,
        kind: str,
        validate: Callable[[Any, str, ReportError], T] = lambda target, *_: target,
        bind: Callable[[T, Registration], T] = _unbound,
    ) -> None:
        self.kind = kind
        self._validate = validate
        """Checks a loaded target of a name and returns it in its typed form; raises `PluginError`."""
        self._bind = bind
        """Returns a loaded target that receives the options of its plugin in its context."""
        self._registrations: dict[str, list[Registration]] = {}

    def add(
        self,
        entry: Entry,
        *,
        plugin: str,
        distribution: str,
        on_error: Callable[[str], None] = lambda message: None,  # noqa: ARG005
        options: Callable[[], Any] = lambda: None,
        meter: UsageMeter | None = None,
    ) -> None:
        """Register an entry. A name offered twice is a conflict, raised only when it is chosen."""
        registration = Registration(
            entry, plugin, distribution, on_error, options, UsageMeter() if meter is None else meter
        )
        self._registrations.setdefault(entry.name, []).append(registration)

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._registrations)

    def __iter__(self) -> Iterator[Registration]:
        for name in self.names():
            yield from self._registrations[name]

    def conflicts(self) -> Iterator[tuple[str, list[Registration]]]:
        """Yield the names that are offered more than once, with their registrations."""
        return ((name, rivals) for name, rivals in self._registrations.items() if len(rivals) > 1)

    def entry(self, name: str) -> Entry:
        """Return the entry of a name. Raise `UnknownName`, with a suggestion, or `NameConflict`."""
        return self.registration(name).entry

    def load(self, name: str) -> T:
        """Import the target of a name, check it and return it.

        Raise `PluginError` if that fails, `ConfigError` if its extra is not installed.
        """
        chosen = self.registration(name)
        self.require_extra(name)
        module, _, attribute = chosen.entry.target.partition(":")
        title = self._title(chosen)
        with mapped(
            lambda error: PluginError(
                f"{title} can't be loaded: {missing_extra(error) or format_error(error)}"
            ),
            base_exceptions=True,
        ):
            found = attrgetter(attribute)(importlib.import_module(module))
        if not callable(found):
            raise PluginError(f"{title} is a {type(found).__name__}, which can't be called")
        try:
            loaded = self._validate(found, name, partial(_report, title, chosen))
        except PluginError as error:
            raise PluginError(f"{title}: {error.message}") from error
        return self._bind(loaded, chosen)

    def require_extra(self, name: str) -> None:
        """Raise `ConfigError` if the extra that an entry needs is not installed."""
        if extra := self.entry(name).extra:
            require_extra(extra, f"the {self.kind} {name!r} needs the extra {extra!r}")

    def registration(self, name: str) -> Registration:
        """Return the entry of a name, with its plugin. Raise the same errors as `entry`."""
        rivals = self._registrations.get(name)
        if not rivals:
            raise UnknownName(self._unknown(name))
        if len(rivals) > 1:
            raise NameConflict(conflict_message(self.kind, name, rivals))
        return rivals[0]

    def _title(self, chosen: Registration) -> str:
        entry = chosen.entry
        return f"the {self.kind} {entry.name!r} of {chosen.distribution} ({entry.target})"

    def _unknown(self, name: str) -> str:
        names = self.names()
        near = difflib.get_close_matches(name, names, n=1, cutoff=MIN_SIMILARITY)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"there is no {self.kind} {name!r}{hint} (registered: {', '.join(names) or 'none'})"


def _report(title: str, chosen: Registration, error: BaseException) -> BaseException:
    error.add_note(f"raised by {title}")
    chosen.meter.add(errors=1)
    chosen.on_error(f"{title} failed: {format_error(error)}")
    return error


def conflict_message(kind: str, name: str, rivals: Sequence[Registration]) -> str:
    """Return the message for a name that several plugins offer."""
    owners = " and ".join(f"{rival.distribution} (plugin {rival.plugin!r})" for rival in rivals)
    last = rivals[-1]
    shared = any(rival.plugin == last.plugin for rival in rivals[:-1])
    one = f"{last.distribution}:{last.plugin}" if shared else last.plugin
    return (
        f"the {kind} {name!r} is offered by {owners}; "
        f"disable one with --disable-plugin {one} or FLLM_DISABLE_PLUGINS={one}"
    )
