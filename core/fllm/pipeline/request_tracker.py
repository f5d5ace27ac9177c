"""One request as collectors see it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from fllm.interfaces import Collector

REPORT_EVERY = 1.0
"""Seconds between two reports of progress: collectors are never called once a token."""


class RequestTracker:
    """The times and counts of one request, and the calls to those who collect them: a `RequestRecord`.

    Made when the request arrives, before a byte of it is read; `finish` must be called exactly once.
    Times are seconds of ``clock`` (`time.monotonic`).
    """

    def __init__(
        self,
        request_id: str,
        collectors: Sequence[Collector] = (),
        clock: Callable[[], float] = time.monotonic,
        *,
        method: str = "",
        path: str = "",
        client: str = "",
        trace_context: Mapping[str, str] | None = None,
    ) -> None:
        self.request_id = request_id
        self.key = uuid.uuid4().hex
        """Unlike the id, which is the client's to choose, it is nobody else's."""
        self.method = method
        self.path = path
        self.client = client
        self.trace_context: Mapping[str, str] = trace_context or {}
        self.status: int | None = None
        self.received_at = clock()
        self.submitted_at: float | None = None
        self.first_token_at: float | None = None
        self.finished_at: float | None = None
        self.queue_time = 0.0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.max_tokens: int | None = None
        self.answers = 1
        self.streamed = False
        self.error: str | None = None
        self._collectors = collectors
        self._clock = clock
        self._last_step: dict[int, float] = {}
        self._gaps: list[float] = []
        self._reasons: dict[int, str] = {}
        self._cached: set[int] = set()
        self._unreported = 0
        self._reported_at = self.received_at
        for collector in collectors:
            collector.received(self)

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Why each sequence ended, in their order."""
        return tuple(self._reasons[index] for index in sorted(self._reasons))

    def submit(
        self, *, prompt_tokens: int, max_tokens: int | None, answers: int = 1, streamed: bool = False
    ) -> None:
        """It has been read, and now goes to the engine; each prompt is to have so many ``answers``."""
        self.submitted_at = self._clock()
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.answers = answers
        self.streamed = streamed

    def step(self, index: int, tokens: int, queue_time: float = 0.0, cached: int = 0) -> None:
        """Sequence ``index`` has so many new tokens."""
        now = self._clock()
        if self.first_token_at is None:
            self._start(now, queue_time, index, cached)
        elif cached:
            self._cache(index, cached)
        if (last := self._last_step.get(index)) is not None:
            self._gaps.append(now - last)
        self._last_step[index] = now
        self.generated_tokens += tokens
        self._unreported += tokens
        if now - self._reported_at >= REPORT_EVERY:
            self._report(now)

    def end(self, index: int, reason: str) -> None:
        """Sequence ``index`` has ended; the first reason that is given counts."""
        self._reasons.setdefault(index, reason)

    def finish(self, error: str | None = None) -> None:
        """The request is over; ``error`` says why it failed, if it did."""
        self.error = error
        self.finished_at = self._clock()
        if self._unreported:
            self._report(self.finished_at)
        for collector in self._collectors:
            collector.finished(self)

    def _start(self, now: float, queue_time: float, index: int, cached: int) -> None:
        self.first_token_at = now
        self.queue_time = queue_time
        self._cache(index, cached)
        for collector in self._collectors:
            collector.started(self)

    def _cache(self, index: int, tokens: int) -> None:
        """The first answer to a prompt computes it; the others find its blocks in the cache."""
        if tokens and index % self.answers == 0 and index not in self._cached:
            self._cached.add(index)
            self.cached_tokens += tokens

    def _report(self, now: float) -> None:
        gaps, self._gaps = self._gaps, []
        tokens, self._unreported = self._unreported, 0
        self._reported_at = now
        for collector in self._collectors:
            collector.progressed(self, gaps, tokens)
