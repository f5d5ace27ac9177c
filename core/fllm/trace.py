"""One request as collectors see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fllm.interfaces import Collector

REPORT_EVERY = 1.0
"""Seconds between two reports of progress: collectors are never called once a token."""


class Trace:
    """The times and counts of one request, and the calls to those who collect them.

    Made when the request arrives, before a byte of it is read; `finish` must be called exactly once.
    Times are seconds of ``clock`` (`time.monotonic`).
    """

    def __init__(
        self,
        request_id: str,
        collectors: Sequence[Collector] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.request_id = request_id
        self.received_at = clock()
        self.first_token_at: float | None = None
        self.finished_at: float | None = None
        self.queued = 0.0
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.max_tokens: int | None = None
        self.error: str | None = None
        self._collectors = collectors
        self._clock = clock
        self._last_step: dict[int, float] = {}
        self._gaps: list[float] = []
        self._unreported = 0
        self._reported_at = self.received_at
        for collector in collectors:
            collector.received(self)

    def step(self, index: int, tokens: int, queued: float = 0.0) -> None:
        """Sequence ``index`` has so many new tokens."""
        now = self._clock()
        if self.first_token_at is None:
            self._start(now, queued)
        if (last := self._last_step.get(index)) is not None:
            self._gaps.append(now - last)
        self._last_step[index] = now
        self.generated_tokens += tokens
        self._unreported += tokens
        if now - self._reported_at >= REPORT_EVERY:
            self._report(now)

    def finish(self, error: str | None = None) -> None:
        """The request is over; ``error`` says why it failed, if it did."""
        self.error = error
        self.finished_at = self._clock()
        if self._unreported:
            self._report(self.finished_at)
        for collector in self._collectors:
            collector.finished(self)

    def _start(self, now: float, queued: float) -> None:
        self.first_token_at = now
        self.queued = queued
        for collector in self._collectors:
            collector.started(self)

    def _report(self, now: float) -> None:
        gaps, self._gaps = self._gaps, []
        tokens, self._unreported = self._unreported, 0
        self._reported_at = now
        for collector in self._collectors:
            collector.progressed(self, gaps, tokens)
