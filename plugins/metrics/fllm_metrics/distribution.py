"""A histogram that several metrics pages can expose with different bounds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate


class Distribution:
    """Counts each sample once, between the bounds of all pages; each page exposes its own bounds.

    The histogram of prometheus_client is ten times slower and can be exposed under only one name.
    """

    def __init__(self, *pages: Sequence[float]) -> None:
        self._bounds = sorted({bound for bounds in pages for bound in bounds})
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, sample: float) -> None:
        """Add one sample."""
        self._counts[bisect_left(self._bounds, sample)] += 1
        self.sum += sample

    def observe_all(self, samples: Iterable[float]) -> None:
        """Add several samples."""
        for sample in samples:
            self.observe(sample)

    def up_to(self, bounds: Sequence[float]) -> list[int]:
        """Return the number of samples up to each bound, then the number of all samples."""
        *counts, count = accumulate(self._counts)
        known = dict(zip(self._bounds, counts, strict=True))
        return [*(known[bound] for bound in bounds), count]
