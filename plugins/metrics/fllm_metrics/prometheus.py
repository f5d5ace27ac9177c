"""Expose metrics to Prometheus, under our names and those of ``--metrics-compat``."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from fllm import Collector, EngineStats, MetricsContext, MetricsPage, RequestRecord
from fllm_metrics.accept_header import unescaped
from fllm_metrics.furiosa_metrics import FuriosaPage
from fllm_metrics.metrics_state import MetricsState
from fllm_metrics.vllm_metrics import VllmPage

COMPATIBLE_PAGES = {"vllm": VllmPage}
"""Pages by the values of ``--metrics-compat``."""


class PrometheusCollector(Collector):
    """Records requests and exposes the metrics to a scraper."""

    def __init__(self, context: MetricsContext) -> None:
        self._state = MetricsState(context.max_model_len)
        self._registry = CollectorRegistry()
        for page in (FuriosaPage, *(COMPATIBLE_PAGES[name] for name in context.config.compat)):
            self._registry.register(page(self._state, context.model_name))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def on_request_start(self, request: RequestRecord) -> None:  # noqa: ARG002
        """Count a received request."""
        self._state.record_start()

    def on_first_token(self, request: RequestRecord) -> None:
        """Record the first token."""
        self._state.record_first_token(request)

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:  # noqa: ARG002
        """Record new tokens."""
        self._state.record_progress(gaps, tokens)

    def on_request_end(self, request: RequestRecord) -> None:
        """Record the end of a request."""
        self._state.record_end(request)

    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        """Return the page; if ``status`` is None, the engine's last values are repeated."""
        self._state.update_status(status)
        encode, content_type = choose_encoder(unescaped(accept))
        return MetricsPage(content_type, encode(self._registry))
