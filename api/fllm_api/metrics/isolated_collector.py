"""Isolates requests from errors of metrics collectors, which are third-party code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import ParamSpec

from fllm.interfaces import Collector, RequestRecord
from fllm.values import EngineStats
from fllm_api.lifecycle.event_loop_watchdog import EventLoopStalled

P = ParamSpec("P")

log = logging.getLogger("fllm.metrics")


class IsolatedCollector(Collector):
    """Calls a collector and logs its errors, once per method. The collector stays in use.

    A collector that blocks the event loop is disabled, because each call would delay all requests.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._failed: set[str] = set()
        self._disabled = False

    def on_request_start(self, request: RequestRecord) -> None:
        """Call `Collector.on_request_start`."""
        self._call(self._collector.on_request_start, request)

    def on_first_token(self, request: RequestRecord) -> None:
        """Call `Collector.on_first_token`."""
        self._call(self._collector.on_first_token, request)

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        """Call `Collector.on_progress`."""
        self._call(self._collector.on_progress, request, gaps, tokens)

    def on_request_end(self, request: RequestRecord) -> None:
        """Call `Collector.on_request_end`."""
        self._call(self._collector.on_request_end, request)

    def on_http_request_end(self, request: RequestRecord) -> None:
        """Call `Collector.on_http_request_end`."""
        self._call(self._collector.on_http_request_end, request)

    def on_interval(self, stats: EngineStats | None) -> None:
        """Call `Collector.on_interval`."""
        self._call(self._collector.on_interval, stats)

    def _call(self, method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._disabled:
            return
        try:
            method(*args, **kwargs)
        except EventLoopStalled:
            self._disabled = True
            log.exception("collector %s blocked the event loop; it is disabled", self._name(method))
        except Exception:
            name = self._name(method)
            if name not in self._failed:
                self._failed.add(name)
                log.exception("collector %s failed; this is logged once", name)

    def _name(self, method: Callable[..., None]) -> str:
        kind = type(self._collector)
        return f"{kind.__module__}.{kind.__qualname__}.{method.__name__}"
