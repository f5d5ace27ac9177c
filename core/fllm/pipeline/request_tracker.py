"""Times and counts of one request, reported to the metrics collectors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from fllm.interfaces import Collector

PROGRESS_INTERVAL_SECONDS = 1.0
"""Minimum time between two progress reports: collectors are never called once per token."""


class RequestTracker:
    """Records the times and counts of one request and reports them to collectors; a `RequestRecord`.

    Create it when the request arrives, before its body is read, and call `finish` exactly once. Times are
    seconds of ``clock`` (by default `time.monotonic`).
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
        deferred: bool = False,
    ) -> None:
        """Create a tracker. ``deferred``: collectors learn of it from `choose_model`, or when it ends."""
        self.request_id = request_id
        self.key = uuid.uuid4().hex
        """Unique to what is submitted, unlike ``request_id``, which the client may choose."""
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
        self.n = 1
        self.streamed = False
        self.model = ""
        self.adapter = ""
        self.replicas: tuple[str, ...] = ()
        self.error: str | None = None
        self.error_code: str | None = None
        self._collectors = collectors
        self._clock = clock
        self._last_step: dict[int, float] = {}
        self._gaps: list[float] = []
        self._reasons: dict[int, str] = {}
        self._cached: set[int] = set()
        self._unreported = 0
        self._reported_at = self.received_at
        self._deferred = deferred
        if not deferred:
            self._begin()

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Finish reasons of the sequences that have ended, by index."""
        return tuple(self._reasons[index] for index in sorted(self._reasons))

    def choose_model(self, name: str) -> None:
        """Record the model of the request, if the server has several."""
        self.model = name
        self._begin_deferred()

    def submit(
        self,
        *,
        prompt_tokens: int,
        max_tokens: int | None,
        n: int = 1,
        streamed: bool = False,
        adapter: str = "",
    ) -> None:
        """Record that the request has been read and is submitted to the engine.

        A request may generate several times: prompt tokens are then those of all times.
        """
        if self.submitted_at is None:
            self.submitted_at = self._clock()
        else:
            self.key = uuid.uuid4().hex
        self.prompt_tokens += prompt_tokens
        self._last_step.clear()
        self._cached.clear()
        self.max_tokens = max_tokens
        self.n = n
        self.streamed = streamed
        self.adapter = adapter

    def step(self, index: int, tokens: int, queue_time: float = 0.0, cached: int = 0) -> None:
        """Record that sequence ``index`` has ``tokens`` new tokens."""
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
        if now - self._reported_at >= PROGRESS_INTERVAL_SECONDS:
            self._report(now)

    def record_replica(self, name: str) -> None:
        """Record that a replica generates."""
        if name not in self.replicas:
            self.replicas += (name,)

    def end(self, index: int, reason: str) -> None:
        """Record that sequence ``index`` has ended; later calls for it are ignored."""
        self._reasons.setdefault(index, reason)

    def finish(self, error: str | None = None) -> None:
        """Record that the request is complete; ``error`` is the reason if it failed."""
        self._begin_deferred()
        self.error = error
        self.finished_at = self._clock()
        if self._unreported:
            self._report(self.finished_at)
        for collector in self._collectors:
            collector.on_request_end(self)

    def _begin_deferred(self) -> None:
        if self._deferred:
            self._deferred = False
            self._begin()

    def _begin(self) -> None:
        for collector in self._collectors:
            collector.on_request_start(self)

    def _start(self, now: float, queue_time: float, index: int, cached: int) -> None:
        self.first_token_at = now
        self.queue_time = queue_time
        self._cache(index, cached)
        for collector in self._collectors:
            collector.on_first_token(self)

    def _cache(self, index: int, tokens: int) -> None:
        """Count a prompt's cached tokens once: later sequences find the blocks of the first one."""
        if tokens and index % self.n == 0 and index not in self._cached:
            self._cached.add(index)
            self.cached_tokens += tokens

    def _report(self, now: float) -> None:
        gaps, self._gaps = self._gaps, []
        tokens, self._unreported = self._unreported, 0
        self._reported_at = now
        for collector in self._collectors:
            collector.on_progress(self, gaps, tokens)
