"""Metrics of models that are loaded on demand, and the page of several models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fllm_metrics.families import Families
from fllm_metrics.metrics_state import MetricsState


def model_families(make: Families, state: MetricsState) -> Iterator[Metric]:
    """Yield the families of a model; none if it is always loaded."""
    model = state.model
    if model is None:
        return
    yield make.gauge("model_loaded", "1 if the model is loaded, else 0", model.state == "loaded")
    yield make.gauge("model_failed", "1 if the last try to load it failed, else 0", model.state == "failed")
    yield make.gauge("model_memory_bytes", "Memory that the model occupies", model.memory)
    yield make.gauge("model_requests", "Requests that use the model", model.in_flight)
    yield make.gauge("model_waiting_requests", "Requests that wait until it is loaded", model.waiting)
    yield make.counter("model_loads", "Times that the model was loaded", model.loads)


class MergedPages(Collector):
    """The pages of several models as one: each family has the series of all models."""

    def __init__(self, pages: Callable[[], Sequence[Collector]]) -> None:
        self._pages = pages

    def collect(self) -> Iterable[Metric]:
        """Return all families."""
        merged: dict[str, Metric] = {}
        for page in self._pages():
            for family in page.collect():
                first = merged.setdefault(family.name, family)
                if first is not family:
                    first.samples += family.samples
        return merged.values()
