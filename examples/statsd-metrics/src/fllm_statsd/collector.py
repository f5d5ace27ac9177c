"""Reports requests as StatsD counters, timers and gauges."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fllm import Collector, EngineStats, RequestRecord
from fllm_statsd.options import StatsdOptions
from fllm_statsd.sender import Sender

_SEPARATOR = re.compile(r"[^A-Za-z0-9_-]+")


class StatsdCollector(Collector):
    """Sends datagrams when they are full, and once per second."""

    def __init__(self, options: StatsdOptions, model_name: str) -> None:
        model = _SEPARATOR.sub("_", model_name)
        path = f"{options.prefix}.{model}" if options.prefix else model
        self._sender = Sender(options.host, options.port, path)

    def on_request_start(self, request: RequestRecord) -> None:  # noqa: ARG002
        """Count the request."""
        self._sender.count("requests", 1)

    def on_first_token(self, request: RequestRecord) -> None:
        """Count the prompt and send the times until the first token."""
        first = request.first_token_at or request.received_at
        self._sender.count("prompt_tokens", request.prompt_tokens)
        self._sender.time("queued", request.queue_time)
        self._sender.time("first_token", first - request.received_at)

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:  # noqa: ARG002
        """Count the tokens and send the times between them."""
        self._sender.count("generated_tokens", tokens)
        for gap in gaps:
            self._sender.time("token_gap", gap)

    def on_request_end(self, request: RequestRecord) -> None:
        """Send the duration, and count an error."""
        end = request.finished_at or request.received_at
        self._sender.time("duration", end - request.received_at)
        if request.error is not None:
            self._sender.count("errors", 1)

    def on_interval(self, stats: EngineStats | None) -> None:
        """Send the state of the engine and everything that is pending."""
        if stats is not None:
            self._sender.gauge("running", stats.running)
            self._sender.gauge("waiting", stats.waiting)
            self._sender.gauge("kv_cache_used", stats.kv_blocks_used / max(stats.kv_blocks, 1))
        self._sender.flush()

    def close(self) -> None:
        """Send what is pending and close the socket."""
        self._sender.close()
