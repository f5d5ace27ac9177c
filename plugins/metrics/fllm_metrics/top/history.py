"""The last minutes of a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct

from fllm_metrics.top.client import Look
from fllm_metrics.top.metrics_page import Histogram, Page

SPAN = 300.0
"""Seconds that are kept."""


class Window(Struct, frozen=True):
    """What happened between two pages; counters that fell began anew, at 0, as Prometheus takes it."""

    before: Page
    now: Page
    seconds: float

    def value(self, name: str) -> float:
        """Now; 0 for what the server does not have."""
        return self.now.values.get(name, 0.0)

    def increase(self, name: str) -> float:
        """By how much a counter grew."""
        now, before = self.value(name), self.before.values.get(name, 0.0)
        return now - before if now >= before else now

    def rate(self, name: str) -> float:
        """By how much it grew in a second."""
        return self.increase(name) / self.seconds if self.seconds else 0.0

    def share(self, part: str, whole: str) -> float | None:
        """Of two counters; nothing where the whole did not grow."""
        grown = self.increase(whole)
        return self.increase(part) / grown if grown else None

    def histogram(self, name: str) -> Histogram:
        """The samples that came."""
        nothing = Histogram()
        return self.now.histograms.get(name, nothing).since(self.before.histograms.get(name, nothing))


Measure = Callable[[Window], float]


class History:
    """Looks at which the server was there, of the last `SPAN` seconds."""

    def __init__(self) -> None:
        self._pages: deque[tuple[float, Page]] = deque()

    def add(self, look: Look) -> None:
        """Remember it, and forget what is too old."""
        if look.page is not None:
            self._pages.append((look.at, look.page))
        while self._pages and self._pages[0][0] < look.at - SPAN:
            self._pages.popleft()

    def window(self, seconds: float) -> Window | None:
        """The last so many seconds, or as much of them as is known; nothing before there are two pages."""
        if len(self._pages) < 2:
            return None
        now = self._pages[-1]
        older = (each for each in reversed(self._pages) if each[0] <= now[0] - seconds)
        return _between(next(older, self._pages[0]), now)

    def trail(self, measure: Measure, cells: int, interval: float) -> Iterator[float | None]:
        """A measure in each of so many equal parts of `SPAN`; nothing where the server was not seen.

        A part is at least two intervals long, so that none is empty only because an answer was late. The
        parts stand still while time goes on, so that what is drawn of them does not flicker.
        """
        if not self._pages:
            return
        step = max(2 * interval, SPAN / cells)
        last_of = {int(at // step): (at, page) for at, page in self._pages}
        newest = max(last_of)
        for cell in range(newest - cells + 1, newest + 1):
            before, now = last_of.get(cell - 1), last_of.get(cell)
            yield measure(_between(before, now)) if before and now else None


def _between(before: tuple[float, Page], now: tuple[float, Page]) -> Window:
    return Window(before[1], now[1], now[0] - before[0])
