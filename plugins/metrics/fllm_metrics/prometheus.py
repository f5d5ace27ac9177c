"""What Prometheus scrapes: the figures under our names, and under others that were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from fllm import Collector, EngineStats, MetricsContext, MetricsPage, RequestRecord
from fllm_metrics.accept_header import unescaped
from fllm_metrics.furiosa_metrics import FuriosaPage
from fllm_metrics.metrics_state import MetricsState
from fllm_metrics.vllm_metrics import VllmPage

COMPATIBLE = {"vllm": VllmPage}
"""``--metrics-compat``."""


class PrometheusCollector(Collector):
    """A `Collector` that can be scraped."""

    def __init__(self, context: MetricsContext) -> None:
        self._state = MetricsState(context.max_model_len)
        self._registry = CollectorRegistry()
        for page in (FuriosaPage, *(COMPATIBLE[name] for name in context.config.compat)):
            self._registry.register(page(self._state, context.model_name))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def on_request_start(self, request: RequestRecord) -> None:  # noqa: ARG002
        """It waits."""
        self._state.received()

    def on_first_token(self, request: RequestRecord) -> None:
        """Its first token is here."""
        self._state.started(request)

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:  # noqa: ARG002
        """It has more tokens."""
        self._state.progressed(gaps, tokens)

    def on_request_end(self, request: RequestRecord) -> None:
        """It is over."""
        self._state.finished(request)

    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        """The page; where the engine gives no status, its last one is repeated."""
        self._state.update_status(status)
        encode, content_type = choose_encoder(unescaped(accept))
        return MetricsPage(content_type, encode(self._registry))
