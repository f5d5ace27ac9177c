"""What the parts of plugins cost: their time, calls, errors and amounts since the server started."""

from __future__ import annotations

from threading import Lock

from msgspec import Struct
from msgspec.structs import replace


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
        self._usage = PluginUsage(plugin=plugin, kind=kind, name=name)
        self._lock = Lock()

    @property
    def usage(self) -> PluginUsage:
        """The usage so far."""
        return self._usage

    def add(self, **amounts: float) -> None:
        """Add amounts to the fields of these names. Call it once per sequence or request, not per token."""
        with self._lock:
            sums = {name: getattr(self._usage, name) + amount for name, amount in amounts.items()}
            self._usage = replace(self._usage, **sums)


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
