"""Expose metrics to Prometheus, under our names and those of ``--metrics-compat``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from fllm import Collector, EngineStats, MetricsContext, MetricsPage, RequestRecord
from fllm_metrics.accept_header import unescaped
from fllm_metrics.furiosa_metrics import FuriosaPage
from fllm_metrics.metrics_state import MetricsState
from fllm_metrics.model_metrics import MergedPages
from fllm_metrics.plugin_metrics import PluginPage
from fllm_metrics.vllm_metrics import VllmPage

PageKind = type[FuriosaPage] | type[VllmPage]

COMPATIBLE_PAGES = {"vllm": VllmPage}
"""Pages by the values of ``--metrics-compat``."""


class PrometheusCollector(Collector):
    """Records the requests of each model and exposes the metrics to a scraper."""

    def __init__(self, context: MetricsContext) -> None:
        names = context.model_names or (context.model_name,)
        self._default = context.model_name
        self._states = {name: MetricsState(context.max_model_len) for name in names}
        if len(names) > 1:  # requests that name none of the models
            self._default = ""
            self._states[""] = MetricsState(context.max_model_len)
        self._registry = CollectorRegistry()
        kinds: list[PageKind] = [FuriosaPage, *(COMPATIBLE_PAGES[name] for name in context.config.compat)]
        for page in kinds:
            self._registry.register(MergedPages(partial(self._pages, page)))
        self._registry.register(PluginPage(context.plugin_usage))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def on_request_start(self, request: RequestRecord) -> None:
        """Count a received request."""
        self._state_of(request).record_start()

    def on_first_token(self, request: RequestRecord) -> None:
        """Record the first token."""
        self._state_of(request).record_first_token(request)

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        """Record new tokens."""
        self._state_of(request).record_progress(gaps, tokens)

    def on_request_end(self, request: RequestRecord) -> None:
        """Record the end of a request."""
        self._state_of(request).record_end(request)

    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        """Return the page; if ``status`` is None, the engine's last values are repeated."""
        if status is not None and status.models:
            for name, model in status.models.items():
                self._states[name].update_model(model)
        else:
            self._states[self._default].update_status(status)
        encode, content_type = choose_encoder(unescaped(accept))
        return MetricsPage(content_type, encode(self._registry))

    def _state_of(self, request: RequestRecord) -> MetricsState:
        return self._states.get(request.model) or self._states[self._default]

    def _pages(self, page: PageKind) -> list[FuriosaPage | VllmPage]:
        """Return a page for each model, and one for requests without a model once there are any."""
        return [page(state, name) for name, state in self._states.items() if name or state.received_total]
