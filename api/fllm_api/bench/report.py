"""Medians over the rounds, and ratios of ours to the best of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from fllm_api.bench.figures import Figure
from fllm_api.bench.workload import Sample, Workload


class Measured(Struct, frozen=True, kw_only=True):
    """A server that was measured."""

    name: str
    url: str
    model: str


class Result(Struct, frozen=True, kw_only=True):
    """One server at one concurrency, over all rounds."""

    server: str
    concurrency: int
    medians: dict[str, float]
    """Of the rounds, by names of figures; a figure that no round could measure is missing."""
    rounds: list[dict[str, float]]
    answers: int
    short_answers: int
    """Of fewer tokens than were asked for."""
    failures: dict[str, int]
    """How often a request failed, by what it failed with."""


class Ratio(Struct, frozen=True, kw_only=True):
    """Ours over the best of the others, at one concurrency, by names of figures."""

    concurrency: int
    ours_to_best_peer: dict[str, float]


class Report(Struct, frozen=True, kw_only=True):
    """All of a run; the first server is ours."""

    workload: Workload
    rounds: int
    servers: list[Measured]
    figures: tuple[Figure, ...]
    results: list[Result]
    ratios: list[Ratio]
    """None without a peer."""

    def of(self, server: str) -> list[Result]:
        """That server's results, in order of concurrency as it was asked for."""
        return [result for result in self.results if result.server == server]


def summarize(server: str, concurrency: int, samples: Sequence[Sample]) -> Result:
    """One result of a server's measurements, one of which was taken in each round."""
    names = {name: None for sample in samples for name in sample.values}
    return Result(
        server=server,
        concurrency=concurrency,
        medians={
            name: median(sample.values[name] for sample in samples if name in sample.values) for name in names
        },
        rounds=[sample.values for sample in samples],
        answers=sum(len(sample.load.answers) for sample in samples),
        short_answers=sum(sample.load.short for sample in samples),
        failures=dict(Counter(failure for sample in samples for failure in sample.load.failures)),
    )


def ratio(results: Sequence[Result], figures: Sequence[Figure]) -> Ratio:
    """Of the first of these results, all at one concurrency, to the best of the others, figure by figure."""
    ours, *peers = results
    ratios = {}
    for figure in figures:
        theirs = [peer.medians[figure.name] for peer in peers if figure.name in peer.medians]
        if figure.better and theirs and figure.name in ours.medians:
            best = max(theirs) if figure.better == "higher" else min(theirs)
            ratios[figure.name] = ours.medians[figure.name] / best
    return Ratio(concurrency=ours.concurrency, ours_to_best_peer=ratios)
