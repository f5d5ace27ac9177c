"""Sweeps: the same trace with other weights of the routing, other caps of a replica's load, other budgets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from simulation.cluster import Settings, simulate
from simulation.costs import StepCosts
from simulation.report import Figures, figures, mean
from simulation.trace import Trace

PREFILL_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
DECODE_WORK = (16, 64, 200, 500)
FAIR_SHARES = (1.0, 1.25, 1.5, 2.0, 100.0)
FREE_REQUESTS = (0, 2, 4, 8, 16)
PREFILL_BUDGETS = (16, 32, 48, 64, 96, 128, 256, 512)
SOLO_BUDGETS = (64, 128, 256, 512)


def routing(base: Settings) -> Iterator[tuple[str, Settings]]:
    """Yield weights of the tokens that a request leaves to prefill, and of requests in flight."""
    for prefill, decode in itertools.product(PREFILL_WEIGHTS, DECODE_WORK):
        weights = replace(base.weights, prefill=prefill, decode=decode)
        yield f"prefill {prefill:g}, request {decode}", replace(base, weights=weights)


def load_cap(base: Settings) -> Iterator[tuple[str, Settings]]:
    """Yield caps of the requests of one replica."""
    for share, free in itertools.product(FAIR_SHARES, FREE_REQUESTS):
        weights = replace(base.weights, fair_share=share, free_requests=free)
        name = "no cap" if share == max(FAIR_SHARES) else f"{share:g} x mean + {free}"
        if share < max(FAIR_SHARES) or free == FREE_REQUESTS[0]:
            yield name, replace(base, weights=weights)


def budgets(base: Settings) -> Iterator[tuple[str, Settings]]:
    """Yield prefill budgets of a step, with others and alone."""
    for budget in PREFILL_BUDGETS:
        limits = replace(base.limits, prefill_budget=budget)
        yield f"budget {budget}", replace(base, limits=limits)
    for solo in (each for each in SOLO_BUDGETS if each != base.limits.solo_prefill_budget):
        limits = replace(base.limits, solo_prefill_budget=solo)
        yield f"alone {solo}", replace(base, limits=limits)


SWEEPS = {"routing": routing, "load-cap": load_cap, "budgets": budgets}


def average(traces: Sequence[Trace], costs: StepCosts, settings: Settings) -> Figures:
    """Return the mean figures of the same settings over several traces."""
    return mean([figures(simulate(trace, costs, settings)) for trace in traces])


def capacity(trace: Trace, costs: StepCosts, settings: Settings) -> float:
    """Return the requests/s of one replica if those of the trace all wait from the start."""
    alone = replace(settings, replicas=1)
    return figures(simulate(trace.at_once(), costs, alone)).requests_per_second
