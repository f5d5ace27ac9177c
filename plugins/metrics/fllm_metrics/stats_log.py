"""Log throughput and cache usage every ten seconds while there are requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from fllm import Collector, EngineStats, RequestRecord
from fllm_metrics.in_flight import InFlight

LOG_INTERVAL = 10.0
"""Seconds between two lines."""

log = logging.getLogger("fllm.stats")


class StatsLog(Collector):
    """Counts tokens, and logs their rate after each interval with requests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = InFlight()
        self._window_start = clock()
        self._busy = False
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._last_stats = EngineStats()

    def on_request_start(self, request: RequestRecord) -> None:  # noqa: ARG002
        """Count a received request."""
        self._in_flight.add()
        self._busy = True

    def on_first_token(self, request: RequestRecord) -> None:
        """Count the prompt tokens, which are now computed."""
        self._in_flight.mark_running()
        self._prompt_tokens += request.prompt_tokens

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:  # noqa: ARG002
        """Count the new tokens."""
        self._generated_tokens += tokens

    def on_request_end(self, request: RequestRecord) -> None:
        """Stop counting a request as in flight."""
        self._in_flight.remove(request)

    def on_interval(self, stats: EngineStats | None) -> None:
        """Log the line if the interval is over and there were requests."""
        seconds = self._clock() - self._window_start
        if seconds < LOG_INTERVAL:
            return
        if self._busy:
            engine = self._describe_cache(stats) if stats else "the engine does not respond"
            log.info("%s; %s", self._describe_load(seconds), engine)
        self._start_window(stats)

    def _start_window(self, stats: EngineStats | None) -> None:
        self._window_start = self._clock()
        self._busy = self._in_flight.waiting + self._in_flight.running > 0
        self._prompt_tokens = self._generated_tokens = 0
        self._last_stats = stats or self._last_stats

    def _describe_load(self, seconds: float) -> str:
        return (
            f"{self._in_flight.running} running, {self._in_flight.waiting} waiting, "
            f"prompt {self._prompt_tokens / seconds:.1f} tokens/s, "
            f"generation {self._generated_tokens / seconds:.1f} tokens/s"
        )

    def _describe_cache(self, stats: EngineStats) -> str:
        before = self._last_stats
        if stats.prefix_queries < before.prefix_queries:  # a restarted engine counts from 0
            before = EngineStats()
        used = share(stats.kv_blocks_used, stats.kv_blocks)
        hits = share(stats.prefix_hits - before.prefix_hits, stats.prefix_queries - before.prefix_queries)
        return f"KV cache {used:.1%} used, prefix cache {hits:.1%} hit"


def share(part: int, whole: int) -> float:
    """Return ``part / whole``, or 0 if ``whole`` is 0."""
    return part / whole if whole else 0.0
