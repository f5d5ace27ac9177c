"""Which plugins are loaded: all but those that are disabled, or only those of a closed list."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.config import PluginConfig
from fllm.plugins.discovery import Candidate, normalize_name


class PluginSelection:
    """Selects plugins by name, and knows which names matched none."""

    def __init__(self, config: PluginConfig) -> None:
        self._disabled = _Names(config.disabled)
        self._allowed = None if config.allowed is None else _Names(config.allowed)

    def disables(self, candidate: Candidate) -> bool:
        """Return whether the plugin is disabled."""
        return self._disabled.match(candidate)

    def allows(self, candidate: Candidate) -> bool:
        """Return whether there is no closed list, or it names the plugin, or the plugin is built in."""
        if self._allowed is None:
            return True
        return self._allowed.match(candidate) or candidate.is_built_in

    @property
    def unmatched_disabled(self) -> list[str]:
        """Names to disable that matched no plugin so far."""
        return self._disabled.unmatched

    @property
    def unmatched_allowed(self) -> list[str]:
        """Names to allow that matched no plugin so far."""
        return [] if self._allowed is None else self._allowed.unmatched


class _Names:
    def __init__(self, names: Iterable[str]) -> None:
        self._names = {normalize_name(name): name for name in names}
        self._matched: set[str] = set()

    def match(self, candidate: Candidate) -> bool:
        matched = candidate.names & self._names.keys()
        self._matched |= matched
        return bool(matched)

    @property
    def unmatched(self) -> list[str]:
        return [name for key, name in self._names.items() if key not in self._matched]
