"""Families of Prometheus metrics, with our prefix and our label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fllm import Status

PREFIX = "furiosa_llm:"
LABELS = ("model_name",)


class Families:
    """Makes families of one registry, each with its one series: it is there, at zero, from the start."""

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        self._registry = registry
        self._model_name = model_name

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is asked for at each scrape."""
        family = Gauge(PREFIX + name, text, LABELS, registry=self._registry)
        family.labels(self._model_name).set_function(value)

    def counter(self, name: str, text: str) -> Counter:
        """The series of a new counter; ``_total`` is added to its name."""
        return Counter(PREFIX + name, text, LABELS, registry=self._registry).labels(self._model_name)

    def histogram(self, name: str, text: str, bounds: Sequence[float]) -> Histogram:
        """The series of a new histogram, divided at ``bounds``."""
        family = Histogram(PREFIX + name, text, LABELS, buckets=bounds, registry=self._registry)
        return family.labels(self._model_name)


class EngineFamilies(Collector):
    """The engine's own figures; when it is started again its totals begin at 0, as counters may."""

    def __init__(self, model_name: str) -> None:
        self._status = Status()
        self._up = False
        self._model_name = model_name

    def hear(self, status: Status | None) -> None:
        """Keep the last that is known, and whether the engine still answers."""
        self._status = status or self._status
        self._up = status is not None

    def collect(self) -> Iterator[Metric]:
        """Two gauges and five counters."""
        status = self._status
        yield self._one(
            GaugeMetricFamily, "engine_up", "1 while the engine answers, 0 while it does not", self._up
        )
        usage = status.kv_blocks_used / status.kv_blocks if status.kv_blocks else 0.0
        yield self._one(GaugeMetricFamily, "kv_cache_usage", "Share of the KV blocks in use, 0 to 1", usage)
        for name, text, total in (
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", status.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache", status.prefix_hits),
            ("preemptions", "Sequences put back for want of KV blocks", status.preemptions),
            ("spec_decode_num_draft_tokens", "Tokens guessed by speculation", status.drafted),
            ("spec_decode_num_accepted_tokens", "Guessed tokens that were right", status.accepted),
        ):
            yield self._one(CounterMetricFamily, name, text, total)

    def _one(
        self,
        kind: type[GaugeMetricFamily | CounterMetricFamily],
        name: str,
        text: str,
        value: float,
    ) -> Metric:
        family = kind(PREFIX + name, text, labels=LABELS)
        family.add_metric([self._model_name], value)
        return family


class WithoutCreated(Collector):
    """A registry's families without their ``_created`` samples; the library's own switch is global."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The families, as they are scraped."""
        for family in self._registry.collect():
            family.samples = [s for s in family.samples if s.name != f"{family.name}_created"]
            yield family
