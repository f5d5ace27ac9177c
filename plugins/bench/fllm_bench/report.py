"""The report of a run: medians over the rounds, and ratios of the first target to the best of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from msgspec import Struct, field

from fllm_bench.metrics import Metric
from fllm_bench.workload import Sample, Workload


class MeasuredTarget(Struct, frozen=True, kw_only=True):
    """A target that was measured."""

    name: str
    url: str
    model: str


class Result(Struct, frozen=True, kw_only=True):
    """One target at one concurrency, over all rounds."""

    server: str
    """Name of the target."""
    concurrency: int
    medians: dict[str, float]
    """Medians over the rounds by metric name; a metric that no round could measure is missing."""
    rounds: list[dict[str, float]]
    """Values of each round by metric name."""
    completions: int = field(name="answers")
    """Number of successful requests."""
    short_completions: int = field(name="short_answers")
    """Number of completions with fewer tokens than requested."""
    failures: dict[str, int]
    """Number of failed requests by error message."""


class Ratio(Struct, frozen=True, kw_only=True):
    """The first target compared with the best of the others, at one concurrency."""

    concurrency: int
    ours_to_best_peer: dict[str, float]
    """Ratios of the medians by metric name."""


class Report(Struct, frozen=True, kw_only=True):
    """All results of a run; the first target is the one that is compared with the others."""

    workload: Workload
    rounds: int
    """Number of rounds."""
    targets: list[MeasuredTarget] = field(name="servers")
    metrics: tuple[Metric, ...] = field(name="figures")
    results: list[Result]
    ratios: list[Ratio]
    """One per concurrency; empty if there is only one target."""

    def results_of(self, name: str) -> list[Result]:
        """Return the results of a target, in the requested order of concurrencies."""
        return [result for result in self.results if result.server == name]


def summarize(name: str, concurrency: int, samples: Sequence[Sample]) -> Result:
    """Return the result of a target from its samples, one per round."""
    metrics = {metric: None for sample in samples for metric in sample.values}
    return Result(
        server=name,
        concurrency=concurrency,
        medians={
            metric: median(sample.values[metric] for sample in samples if metric in sample.values)
            for metric in metrics
        },
        rounds=[sample.values for sample in samples],
        completions=sum(len(sample.log.completions) for sample in samples),
        short_completions=sum(sample.log.short for sample in samples),
        failures=dict(Counter(failure for sample in samples for failure in sample.log.failures)),
    )


def compare_results(results: Sequence[Result], metrics: Sequence[Metric]) -> Ratio:
    """Return the ratio of the first result to the best of the others, metric by metric.

    All results have the same concurrency.
    """
    first, *others = results
    ratios = {}
    for metric in metrics:
        values = [other.medians[metric.name] for other in others if metric.name in other.medians]
        if metric.better and values and metric.name in first.medians:
            best = max(values) if metric.better == "higher" else min(values)
            ratios[metric.name] = first.medians[metric.name] / best
    return Ratio(concurrency=first.concurrency, ours_to_best_peer=ratios)
