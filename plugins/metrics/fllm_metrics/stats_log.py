"""A line in the log every ten seconds while there is work."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from fllm import Collector, EngineStats, RequestRecord
from fllm_metrics.in_flight import InFlight

EVERY = 10.0
"""Seconds between two lines."""

log = logging.getLogger("fllm.stats")


class LogCollector(Collector):
    """Counts tokens, and tells their rate once a window is over in which something happened."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = InFlight()
        self._opened_at = clock()
        self._busy = False
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._before = EngineStats()

    def on_request_start(self, request: RequestRecord) -> None:  # noqa: ARG002
        """There is work."""
        self._in_flight.received()
        self._busy = True

    def on_first_token(self, request: RequestRecord) -> None:
        """Its prompt counts now that it is computed."""
        self._in_flight.started()
        self._prompt_tokens += request.prompt_tokens

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:  # noqa: ARG002
        """Its new tokens count."""
        self._generated_tokens += tokens

    def on_request_end(self, request: RequestRecord) -> None:
        """It is counted no more."""
        self._in_flight.finished(request)

    def on_interval(self, stats: EngineStats | None) -> None:
        """Write the line if it is time and there is something to tell."""
        seconds = self._clock() - self._opened_at
        if seconds < EVERY:
            return
        if self._busy:
            cache = self._cache(stats) if stats else "the engine does not answer"
            log.info("%s; %s", self._work(seconds), cache)
        self._open(stats)

    def _open(self, status: EngineStats | None) -> None:
        self._opened_at = self._clock()
        self._busy = self._in_flight.waiting + self._in_flight.running > 0
        self._prompt_tokens = self._generated_tokens = 0
        self._before = status or self._before

    def _work(self, seconds: float) -> str:
        return (
            f"{self._in_flight.running} running, {self._in_flight.waiting} waiting, "
            f"prompt {self._prompt_tokens / seconds:.1f} tokens/s, "
            f"generation {self._generated_tokens / seconds:.1f} tokens/s"
        )

    def _cache(self, status: EngineStats) -> str:
        before = self._before
        if status.prefix_queries < before.prefix_queries:  # the engine was started again, and counts from 0
            before = EngineStats()
        used = share(status.kv_blocks_used, status.kv_blocks)
        hits = share(status.prefix_hits - before.prefix_hits, status.prefix_queries - before.prefix_queries)
        return f"KV cache {used:.1%} used, prefix cache {hits:.1%} hit"


def share(part: int, whole: int) -> float:
    """``part / whole``, and 0 of nothing."""
    return part / whole if whole else 0.0
