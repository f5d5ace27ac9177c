"""Families of Prometheus metrics, made when they are scraped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from fllm_metrics.distribution import Distribution

PREFIX = "furiosa_llm:"
"""Of our own names."""


class Families:
    """Families of one prefix, each with a series of the same labels: it is there, at zero, from the start."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._names = [*labels]
        self._values = [*labels.values()]

    def gauge(self, name: str, text: str, value: float) -> Metric:
        """What may rise and fall."""
        family = GaugeMetricFamily(self._prefix + name, text, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def counter(self, name: str, text: str, total: float) -> Metric:
        """What only grows; ``_total`` is added to its name."""
        family = CounterMetricFamily(self._prefix + name, text, labels=self._names)
        family.add_metric(self._values, total)
        return family

    def counters(self, name: str, text: str, label: str, totals: Mapping[str, float]) -> Metric:
        """A series for each value of one label more."""
        family = CounterMetricFamily(self._prefix + name, text, labels=[*self._names, label])
        for value, total in totals.items():
            family.add_metric([*self._values, value], total)
        return family

    def histogram(self, name: str, text: str, samples: Distribution, bounds: Sequence[float]) -> Metric:
        """A distribution, divided at ``bounds``."""
        family = HistogramMetricFamily(self._prefix + name, text, labels=self._names)
        labels = [*map(floatToGoString, bounds), "+Inf"]
        family.add_metric(self._values, [*zip(labels, samples.up_to(bounds), strict=True)], samples.sum)
        return family
