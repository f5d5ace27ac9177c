"""What the parts of plugins cost: their time, calls, errors and amounts since the server started."""

from __future__ import annotations

from threading import Lock

from msgspec import Struct


class PluginUsage(Struct, frozen=True, kw_only=True):
    """What one part of a plugin has done since the server started."""

    plugin: str
    kind: str
    """Such as ``tool-call parser``, ``chat template``, ``routes`` or ``collector``."""
    name: str
    """Name of the entry or, of what has no name of its own, that of the plugin."""
    calls: int = 0
    """Parsed sequences, rendered prompts, requests of routes, calls of a collector."""
    errors: int = 0
    """Errors that the part raised; of routes, responses with a status of 500 or more."""
    seconds: float = 0.0
    """Time inside the part; of routes, from the arrival of a request to the end of its response."""
    events: int = 0
    """Events that a parser emitted."""
    characters: int = 0
    """Characters that a parser received, or that a template rendered."""
    bytes_in: int = 0
    """Bytes of the bodies of requests that routes received."""
    bytes_out: int = 0
    """Bytes of the bodies of their responses."""


class UsageMeter:
    """Counts the usage of one part of a plugin. Thread-safe."""

    def __init__(self, plugin: str = "", kind: str = "", name: str = "") -> None:
        self._part = (plugin, kind, name)
        self._lock = Lock()
        self._calls = 0
        self._errors = 0
        self._seconds = 0.0
        self._events = 0
        self._characters = 0
        self._bytes_in = 0
        self._bytes_out = 0

    @property
    def usage(self) -> PluginUsage:
        """The usage so far."""
        plugin, kind, name = self._part
        with self._lock:
            return PluginUsage(
                plugin=plugin,
                kind=kind,
                name=name,
                calls=self._calls,
                errors=self._errors,
                seconds=self._seconds,
                events=self._events,
                characters=self._characters,
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
            )

    def add(
        self,
        calls: int = 0,
        seconds: float = 0.0,
        *,
        errors: int = 0,
        events: int = 0,
        characters: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> None:
        """Add amounts. Call it once per sequence or request, not per token."""
        with self._lock:
            self._calls += calls
            self._seconds += seconds
            self._errors += errors
            self._events += events
            self._characters += characters
            self._bytes_in += bytes_in
            self._bytes_out += bytes_out


class UsageMeters:
    """The meters of all parts that a server uses."""

    def __init__(self) -> None:
        self._meters: dict[tuple[str, str, str], UsageMeter] = {}

    def meter(self, plugin: str, kind: str, name: str) -> UsageMeter:
        """Return the meter of a part; it is always the same."""
        return self._meters.setdefault((plugin, kind, name), UsageMeter(plugin, kind, name))

    def used(self) -> list[PluginUsage]:
        """Return the usage of all parts that were called, or that failed."""
        usages = [meter.usage for meter in list(self._meters.values())]
        return [usage for usage in usages if usage.calls or usage.errors]
