"""Figures of a run, and tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict

from simulation.cluster import Run

POINTS = (50, 90, 99)


class Figures(Struct, frozen=True, kw_only=True):
    """Figures of one run. Times are in seconds."""

    requests: int
    requests_per_second: float
    tokens_per_second: float
    """Of outputs."""
    ttft_mean: float
    ttft: tuple[float, float, float]
    """Time to first token: 50th, 90th and 99th percentile."""
    gap: tuple[float, float, float]
    """Time between two tokens of a request, likewise."""
    latency: float
    """Mean time to the last token."""
    token_time: tuple[float, float, float]
    """Mean time between two tokens of a request, likewise over all requests."""
    hits: float
    """Share of prompt tokens found in the prefix cache."""
    imbalance: float
    """Seconds of steps of the busiest replica, divided by the mean of all."""
    busy: float
    """Share of the time in which a replica computes, in the mean."""
    preemptions: int
    routing: float
    """CPU time of the routing of a request. It is measured, so it differs from run to run."""


def figures(run: Run) -> Figures:
    """Return the figures of a run."""
    first = [each.first - each.arrival for each in run.served]
    busy = np.asarray(run.busy)
    return Figures(
        requests=len(run.served),
        requests_per_second=len(run.served) / max(run.seconds, 1e-9),
        tokens_per_second=sum(each.tokens for each in run.served) / max(run.seconds, 1e-9),
        ttft_mean=float(np.mean(first)) if first else 0.0,
        ttft=percentiles(first),
        gap=percentiles(run.gaps),
        latency=float(np.mean([each.last - each.arrival for each in run.served])) if run.served else 0.0,
        token_time=percentiles([each.token_time for each in run.served if each.token_time is not None]),
        hits=sum(each.cached for each in run.served) / max(sum(each.prompt for each in run.served), 1),
        imbalance=float(busy.max() / busy.mean()) if busy.any() else 1.0,
        busy=float(busy.mean() / run.seconds) if busy.any() else 0.0,
        preemptions=run.preemptions,
        routing=run.routing_seconds / max(len(run.served), 1),
    )


def mean(runs: Sequence[Figures]) -> Figures:
    """Return the means of the figures of several runs."""
    columns = [asdict(each) for each in runs]
    means: dict[str, Any] = {name: _mean([each[name] for each in columns]) for name in columns[0]}
    return Figures(**means)


def _mean(values: Sequence[float | tuple[float, ...]]) -> float | tuple[float, ...]:
    averages = np.mean(np.asarray(values), axis=0)
    return tuple(averages.tolist()) if averages.ndim else float(averages)


def percentiles(values: Sequence[float] | Iterable[float]) -> tuple[float, float, float]:
    """Return the 50th, 90th and 99th percentile; zeros if there are no values."""
    array = np.asarray(list(values))
    if not len(array):
        return (0.0, 0.0, 0.0)
    median, upper, last = np.percentile(array, POINTS)
    return (float(median), float(upper), float(last))


HEADER = (
    "TTFT p50 / p90 / p99, s | between tokens p50 / p90 / p99, ms | latency, mean, s | requests/s | tokens/s "
    "| hits | busiest / mean | busy"
)


def table_head(first: str) -> str:
    """Return the head of a table with this name of its first column."""
    return f"| {first} | {HEADER} |\n|" + "---|" * (HEADER.count("|") + 2)


def table_row(name: str, each: Figures) -> str:
    """Return the row of a run."""
    ttft = " / ".join(f"{value:.2f}" for value in each.ttft)
    gap = " / ".join(f"{1000 * value:.1f}" for value in each.gap)
    return (
        f"| {name} | {ttft} | {gap} | {each.latency:.2f} | {each.requests_per_second:.2f} | "
        f"{each.tokens_per_second:.0f} | {each.hits:.1%} | {each.imbalance:.2f} | {each.busy:.0%} |"
    )
