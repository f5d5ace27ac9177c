"""An allowance that refills all the time."""

from __future__ import annotations

from collections.abc import Callable

MINUTE = 60.0


class Bucket:
    """So many tokens a minute, and no more at once. What is taken beyond them is a debt, refilled too."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.size = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._measured_at = clock()

    @property
    def level(self) -> float:
        """Tokens that are left; below 0 in debt."""
        now = self._clock()
        refilled = (now - self._measured_at) * self.size / MINUTE
        self._level = min(self._level + refilled, float(self.size))
        self._measured_at = now
        return self._level

    def take(self, tokens: int) -> None:
        """Tokens that were used."""
        self._level = self.level - tokens

    def seconds_until(self, tokens: float) -> float:
        """How long it takes until so many are left, if nobody takes any."""
        return max(tokens - self.level, 0.0) * MINUTE / self.size
