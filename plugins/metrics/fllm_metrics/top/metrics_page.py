"""Parse a page of Prometheus metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from fllm_metrics.families import PREFIX


class Histogram(Struct, frozen=True):
    """Numbers of samples at or below each bound; the last bound is infinite."""

    bounds: tuple[float, ...] = (math.inf,)
    counts: tuple[float, ...] = (0.0,)

    def since(self, before: Histogram) -> Histogram:
        """Return the samples that are not in ``before``; all samples if counting has restarted."""
        if before.bounds != self.bounds or before.counts[-1] > self.counts[-1]:
            return self
        counts = (now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds, tuple(counts))

    def quantile(self, share: float) -> float | None:
        """Return a quantile, estimated as Prometheus does; infinite if it is above the last finite bound."""
        rank = share * self.counts[-1]
        low = under = 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= rank and count > under:
                return low + (bound - low) * (rank - under) / (count - under)
            low, under = bound, count
        return None


class Page(Struct, frozen=True):
    """Values by name, without our prefix. Series that differ only in their labels are added.

    Those with an outcome are also there by ``NAME:OUTCOME``.
    """

    values: Mapping[str, float]
    histograms: Mapping[str, Histogram]
    replicas: Mapping[str, Mapping[str, float]] = {}
    """Values of each replica by name, without the prefix ``replica_``."""
    models: Mapping[str, Mapping[str, float]] = {}
    """Values of each model by name, if models are loaded on demand."""
    plugins: Mapping[str, Mapping[str, float]] = {}
    """Values of each part of a plugin, by kind and name, without the prefix ``plugin_``."""


def parse_page(text: str) -> Page:
    """Parse the text format; raise `ValueError` if it is not a page of metrics."""
    values: dict[str, float] = defaultdict(float)
    replicas: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    models: dict[str, dict[str, float]] = defaultdict(dict)
    plugins: dict[str, dict[str, float]] = defaultdict(dict)
    buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            name = name.removeprefix(PREFIX)
            if "le" in labels:
                buckets[name.removesuffix("_bucket")][float(labels["le"])] += value
            elif "plugin" in labels:
                plugins[f"{labels['kind']} {labels['name']}"][name.removeprefix("plugin_")] = value
            elif "replica" in labels:
                replicas[labels["model_name"], labels["replica"]][name.removeprefix("replica_")] = value
            else:
                values[name] += value
                if "outcome" in labels:
                    values[f"{name}:{labels['outcome']}"] += value
                if "model_name" in labels:
                    models[labels["model_name"]][name] = value
    histograms = {name: Histogram(tuple(counts), tuple(counts.values())) for name, counts in buckets.items()}
    on_demand = {name: each for name, each in models.items() if "model_loaded" in each}
    several = len({model for model, _ in replicas}) > 1
    by_name = {f"{model} {name}" if several else name: each for (model, name), each in replicas.items()}
    return Page(values, histograms, by_name, on_demand, plugins)
