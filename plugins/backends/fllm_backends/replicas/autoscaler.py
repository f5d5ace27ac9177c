"""How many replicas there should be: a policy over queued tokens. It reads no clock and starts nothing."""

from __future__ import annotations

import math

from msgspec import Struct

from fllm.config import Autoscaling

HYSTERESIS = 0.5
"""A replica is given up only if the others would then have at most this part of their target."""


class Load(Struct, frozen=True):
    """What the replicas have to do."""

    queued_tokens: int
    """Tokens of prompts that are not computed yet, and a constant for each request that decodes."""
    requests: int
    """Number of requests in flight."""


class Autoscaler:
    """Moves its ``target`` between the minimum and the maximum.

    Up, if more replicas were wanted all of ``upscale_delay``: to the least number that was wanted in this
    time. Down, if fewer were enough all of ``downscale_delay``: to the largest number that was enough. Each
    move begins both times again. From 0, the first request moves it at once.
    """

    def __init__(self, config: Autoscaling, target: int) -> None:
        self.target = target
        """Number of replicas that there should be."""
        self._config = config
        self._above = _Window()
        self._below = _Window()

    def update(self, now: float, load: Load) -> int:
        """Return the new target. ``now`` is in seconds."""
        wanted, enough = self._needed(load, 1.0), self._needed(load, HYSTERESIS)
        if wanted > self.target:
            self._below = _Window()
            if self._above.add(now, wanted) >= self._config.upscale_delay or self.target == 0:
                self._move(min(self._above.numbers))
        elif enough < self.target:
            self._above = _Window()
            if self._below.add(now, enough) >= self._config.downscale_delay:
                self._move(max(self._below.numbers))
        else:
            self._above, self._below = _Window(), _Window()
        return self.target

    def _needed(self, load: Load, fill: float) -> int:
        needed = math.ceil(load.queued_tokens / (fill * self._config.target_queued_tokens))
        needed = max(needed, 1 if load.requests else 0, self._config.min_replicas)
        return min(needed, self._config.max_replicas)

    def _move(self, target: int) -> None:
        self.target = target
        self._above, self._below = _Window(), _Window()


class _Window:
    """The numbers that were needed since a condition holds."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self._since = 0.0

    def add(self, now: float, number: int) -> float:
        """Record a number; return the seconds since the first."""
        if not self.numbers:
            self._since = now
        self.numbers.add(number)
        return now - self._since
