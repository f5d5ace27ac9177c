"""The recent history of a server's metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct

from fllm_metrics.top.client import Snapshot
from fllm_metrics.top.metrics_page import Histogram, Page

HISTORY_SECONDS = 300.0
"""How long snapshots are kept."""


class Window(Struct, frozen=True):
    """The change between two pages. A counter that fell has restarted at 0, as in Prometheus."""

    before: Page
    now: Page
    seconds: float

    def value(self, name: str) -> float:
        """Return the current value; 0 if the server does not have it."""
        return self.now.values.get(name, 0.0)

    def increase(self, name: str) -> float:
        """Return the increase of a counter."""
        now, before = self.value(name), self.before.values.get(name, 0.0)
        return now - before if now >= before else now

    def rate(self, name: str) -> float:
        """Return the increase of a counter per second."""
        return self.increase(name) / self.seconds if self.seconds else 0.0

    def share(self, part: str, whole: str) -> float | None:
        """Return the ratio of two increases; None if ``whole`` did not increase."""
        total = self.increase(whole)
        return self.increase(part) / total if total else None

    def histogram(self, name: str) -> Histogram:
        """Return the new samples of a histogram."""
        empty = Histogram()
        return self.now.histograms.get(name, empty).since(self.before.histograms.get(name, empty))


Measure = Callable[[Window], float]


class History:
    """The pages of the last `HISTORY_SECONDS`, without snapshots at which the server was unreachable."""

    def __init__(self) -> None:
        self._pages: deque[tuple[float, Page]] = deque()

    def add(self, snapshot: Snapshot) -> None:
        """Add a snapshot and remove those that are too old."""
        if snapshot.page is not None:
            self._pages.append((snapshot.at, snapshot.page))
        while self._pages and self._pages[0][0] < snapshot.at - HISTORY_SECONDS:
            self._pages.popleft()

    def window(self, seconds: float) -> Window | None:
        """Return the last ``seconds``, or as much of them as is known; None with fewer than two pages."""
        if len(self._pages) < 2:
            return None
        now = self._pages[-1]
        older = (each for each in reversed(self._pages) if each[0] <= now[0] - seconds)
        return _between(next(older, self._pages[0]), now)

    def series(self, measure: Measure, cells: int, interval: float) -> Iterator[float | None]:
        """Yield a measure for each of ``cells`` equal parts of `HISTORY_SECONDS`; None without data.

        A part is at least two intervals long, so that a late response leaves no gap. The boundaries of the
        parts do not move with time, so that the drawing does not flicker.
        """
        if not self._pages:
            return
        step = max(2 * interval, HISTORY_SECONDS / cells)
        last_of = {int(at // step): (at, page) for at, page in self._pages}
        newest = max(last_of)
        for cell in range(newest - cells + 1, newest + 1):
            before, now = last_of.get(cell - 1), last_of.get(cell)
            yield measure(_between(before, now)) if before and now else None


def _between(before: tuple[float, Page], now: tuple[float, Page]) -> Window:
    return Window(before[1], now[1], now[0] - before[0])
