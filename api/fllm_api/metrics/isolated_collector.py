"""Isolates requests from errors of metrics collectors, which are third-party code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import ParamSpec

from fllm.containment import contained
from fllm.errors import format_error
from fllm.interfaces import Collector, RequestRecord
from fllm.plugin_usage import UsageMeter
from fllm.plugins.loader import PluginReport
from fllm.values import EngineStats
from fllm_api.lifecycle.event_loop_watchdog import EventLoopStalled

P = ParamSpec("P")

log = logging.getLogger("fllm.metrics")


class IsolatedCollector(Collector):
    """Calls a collector and logs its errors, once per method. The collector stays in use.

    A collector that blocks the event loop is disabled, because each call would delay all requests.
    """

    def __init__(
        self, collector: Collector, owner: PluginReport | None = None, meter: UsageMeter | None = None
    ) -> None:
        self._collector = collector
        self._owner = owner
        self._meter = UsageMeter() if meter is None else meter
        self._failed: set[str] = set()
        self._disabled = False
        self._calls, self._seconds = 0, 0.0
        """Since they were last added to the meter. All calls come from the event loop."""

    @property
    def overrides_on_interval(self) -> bool:
        """Whether the collector is to be called once per second."""
        return type(self._collector).on_interval is not Collector.on_interval

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
        self._report_usage()

    def on_http_request_end(self, request: RequestRecord) -> None:
        """Call `Collector.on_http_request_end`."""
        self._call(self._collector.on_http_request_end, request)
        self._report_usage()

    def on_interval(self, stats: EngineStats | None) -> None:
        """Call `Collector.on_interval`."""
        self._call(self._collector.on_interval, stats)
        self._report_usage()

    def _call(self, method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._disabled:
            return
        started_at = perf_counter()
        with contained(lambda error: self._failed_with(error, method.__name__)):
            method(*args, **kwargs)
        self._calls += 1
        self._seconds += perf_counter() - started_at

    def _report_usage(self) -> None:
        """Add what is not in the meter yet. It has a lock, which takes as long as a small collector."""
        self._meter.add(self._calls, self._seconds)
        self._calls, self._seconds = 0, 0.0

    def _failed_with(self, error: BaseException, method: str) -> None:
        self._meter.add(errors=1)
        kind = type(self._collector)
        name = f"{kind.__module__}.{kind.__qualname__}.{method}"
        if isinstance(error, EventLoopStalled):
            self._disabled = True
            self._report(f"collector {name}", "blocked the event loop; it is disabled", error)
        elif method not in self._failed:
            self._failed.add(method)
            self._report(f"collector {name}", "failed; this is logged once", error)

    def _report(self, what: str, problem: str, error: BaseException) -> None:
        if self._owner is None:
            log.error("%s %s", what, problem, exc_info=error)
        else:
            log.error("%s of plugin %s %s", what, self._owner.title, problem, exc_info=error)
            self._owner.record_run_time(f"{what} failed: {format_error(error)}")
