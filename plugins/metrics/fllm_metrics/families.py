"""Build Prometheus metric families during a scrape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from fllm_metrics.distribution import Distribution

PREFIX = "furiosa_llm:"
"""Prefix of our metric names."""


class Families:
    """Builds families with the same prefix and labels. Every series exists from the start, at 0."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._names = [*labels]
        self._values = [*labels.values()]

    def gauge(self, name: str, text: str, value: float) -> Metric:
        """Return a gauge."""
        family = GaugeMetricFamily(self._prefix + name, text, labels=self._names)
        family.add_metric(self._values, value)
        return family

    def gauges(self, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
        """Return a gauge with a series for each value of an additional label."""
        family = GaugeMetricFamily(self._prefix + name, text, labels=[*self._names, label])
        for value, number in values.items():
            family.add_metric([*self._values, value], number)
        return family

    def counter(self, name: str, text: str, total: float) -> Metric:
        """Return a counter; ``_total`` is added to its name."""
        family = CounterMetricFamily(self._prefix + name, text, labels=self._names)
        family.add_metric(self._values, total)
        return family

    def counters(self, name: str, text: str, label: str, totals: Mapping[str, float]) -> Metric:
        """Return a counter with a series for each value of an additional label."""
        family = CounterMetricFamily(self._prefix + name, text, labels=[*self._names, label])
        for value, total in totals.items():
            family.add_metric([*self._values, value], total)
        return family

    def histogram(self, name: str, text: str, samples: Distribution, bounds: Sequence[float]) -> Metric:
        """Return a histogram with these bounds."""
        family = HistogramMetricFamily(self._prefix + name, text, labels=self._names)
        labels = [*map(floatToGoString, bounds), "+Inf"]
        family.add_metric(self._values, [*zip(labels, samples.up_to(bounds), strict=True)], samples.sum)
        return family
