"""A token bucket for limits of tokens per minute."""

from __future__ import annotations

from collections.abc import Callable

SECONDS_PER_MINUTE = 60.0


class TokenBucket:
    """Holds at most one minute's tokens and refills continuously. Taking more than it holds leaves a debt."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.size = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._measured_at = clock()

    @property
    def level(self) -> float:
        """Available tokens; negative while there is a debt."""
        now = self._clock()
        refilled = (now - self._measured_at) * self.size / SECONDS_PER_MINUTE
        self._level = min(self._level + refilled, float(self.size))
        self._measured_at = now
        return self._level

    def take(self, tokens: int) -> None:
        """Remove tokens, also if the bucket holds fewer."""
        self._level = self.level - tokens

    def seconds_until(self, tokens: float) -> float:
        """Return the seconds until the bucket holds this many tokens if none are taken."""
        return max(tokens - self.level, 0.0) * SECONDS_PER_MINUTE / self.size
