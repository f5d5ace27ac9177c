"""Collectors are a stranger's code: no request may suffer from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fllm.interfaces import Collector, RequestRecord
from fllm.values import EngineStats
from fllm_api.lifecycle.event_loop_watchdog import EventLoopStalled

log = logging.getLogger("fllm.metrics")


class Guarded:
    """A collector whose errors go no further than the log, the first of each method; it stays in use.

    One that hangs is asked nothing more: each time would keep all requests waiting.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._failed: set[str] = set()
        self._hangs = False

    def received(self, request: RequestRecord) -> None:
        """As `Collector.received`."""
        self._call("received", request)

    def started(self, request: RequestRecord) -> None:
        """As `Collector.started`."""
        self._call("started", request)

    def progressed(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        """As `Collector.progressed`."""
        self._call("progressed", request, gaps, tokens)

    def finished(self, request: RequestRecord) -> None:
        """As `Collector.finished`."""
        self._call("finished", request)

    def answered(self, request: RequestRecord) -> None:
        """As `Auditing.answered`, for a collector that has it."""
        self._call("answered", request)

    def tick(self, status: EngineStats | None) -> None:
        """As `Ticking.tick`, for a collector that has it."""
        self._call("tick", status)

    def _call(self, method: str, *arguments: object) -> None:
        if self._hangs:
            return
        try:
            getattr(self._collector, method)(*arguments)
        except EventLoopStalled:
            self._hangs = True
            log.exception("collector %s hangs; it is left out from now on", self._name(method))
        except Exception:
            if method not in self._failed:
                self._failed.add(method)
                log.exception("collector %s failed; this is logged once", self._name(method))

    def _name(self, method: str) -> str:
        kind = type(self._collector)
        return f"{kind.__module__}.{kind.__qualname__}.{method}"
