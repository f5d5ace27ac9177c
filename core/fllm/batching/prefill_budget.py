"""How many prompt tokens a step computes: few while others decode, more for a sequence that stays alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from fllm.batching.limits import BatchLimits
from fllm.batching.sequence import Sequence

SOLO_PREFILL_SHARE = 1 / 3
"""Share of a step's prefill budget for the only sequence in prefill, if the step does not complete its
prompt: other requests are likely to arrive."""
IDLE_SECONDS = 1.0
"""Seconds after which a sequence that runs alone is assumed to stay alone."""


class PrefillBudget:
    """The prefill budget of each step, which depends on how many sequences there were lately."""

    def __init__(self, limits: BatchLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._last_concurrent_at = -math.inf
        """Time of the latest step with more than one sequence."""

    def record_concurrent(self) -> None:
        """Record that there is more than one sequence now."""
        self._last_concurrent_at = self._clock()

    def of_step(self, sequences: list[Sequence], token_budget: int) -> float:
        """Return what a step may spend on the prefill of these sequences."""
        solo = self._clock() - self._last_concurrent_at > IDLE_SECONDS
        budget = self._limits.step_prefill_budget(token_budget, solo=solo)
        if solo or len(sequences) > 1:
            return budget
        [only] = sequences
        cost = only.remaining * self._limits.token_cost(only.computed)
        return budget if cost <= budget else budget * SOLO_PREFILL_SHARE
