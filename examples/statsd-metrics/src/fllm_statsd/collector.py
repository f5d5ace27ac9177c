"""What becomes of requests, as StatsD's counters, timers and gauges."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fllm import EngineStats, RequestRecord
from fllm_statsd.sender import Sender
from fllm_statsd.settings import Settings

_SEPARATOR = re.compile(r"[^A-Za-z0-9_-]+")


class StatsdCollector:
    """A `Collector` that is `Ticking`: datagrams leave when they are full, and once a second."""

    def __init__(self, settings: Settings, model_name: str) -> None:
        model = _SEPARATOR.sub("_", model_name)
        path = f"{settings.prefix}.{model}" if settings.prefix else model
        self._sender = Sender(settings.host, settings.port, path)

    def received(self, request: RequestRecord) -> None:  # noqa: ARG002
        """It counts."""
        self._sender.count("requests", 1)

    def started(self, request: RequestRecord) -> None:
        """Its prompt is computed."""
        first = request.first_token_at or request.received_at
        self._sender.count("prompt_tokens", request.prompt_tokens)
        self._sender.time("queued", request.queue_time)
        self._sender.time("first_token", first - request.received_at)

    def progressed(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:  # noqa: ARG002
        """Tokens, and the time between them."""
        self._sender.count("generated_tokens", tokens)
        for gap in gaps:
            self._sender.time("token_gap", gap)

    def finished(self, request: RequestRecord) -> None:
        """How long it took, and whether it failed."""
        end = request.finished_at or request.received_at
        self._sender.time("duration", end - request.received_at)
        if request.error is not None:
            self._sender.count("errors", 1)

    def tick(self, status: EngineStats | None) -> None:
        """What the engine does now; then off with all of it."""
        if status is not None:
            self._sender.gauge("running", status.running)
            self._sender.gauge("waiting", status.waiting)
            self._sender.gauge("kv_cache_used", status.kv_blocks_used / max(status.kv_blocks, 1))
        self._sender.flush()

    def close(self) -> None:
        """Send what is left."""
        self._sender.close()
