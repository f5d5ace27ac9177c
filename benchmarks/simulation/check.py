"""Compare predictions for few replicas with runs of the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from fllm.testing import serving
from simulation.cluster import Settings, simulate
from simulation.costs import read_costs
from simulation.report import Figures, figures
from simulation.server import flat_trace, play
from simulation.trace import Trace

WARM_UP = 8
"""Requests before the trace: the first ones of a server take longer."""


def compare(trace: Trace, costs_file: Path, counts: Sequence[int], model: str) -> Iterator[str]:
    """Yield a table for each number of replicas, all of them on this machine."""
    trace = trace.without_outputs()
    for count in counts:
        costs = read_costs(costs_file, count)
        played = trace.within(costs.max_model_len)
        predicted = figures(simulate(played, costs, Settings(replicas=count, shared=True)))
        options = [model, "--served-model-name", "m", "--log-level", "warning"]
        with serving(*options, "--replicas", str(count)) as server:
            asyncio.run(play(server, flat_trace(WARM_UP, 100, 16, 1 << 20)))
            measured = figures(asyncio.run(play(server, played)))
        yield f"--replicas {count}: {len(played.requests)} requests"
        yield "| | predicted | measured | error |\n|---|---|---|---|"
        for name, digits, expected, actual in _pairs(predicted, measured):
            error = f"{expected / actual - 1:+.0%}" if actual else ""
            yield f"| {name} | {expected:.{digits}f} | {actual:.{digits}f} | {error} |"


def _pairs(predicted: Figures, measured: Figures) -> Iterator[tuple[str, int, float, float]]:
    """Yield what is compared: its name and digits, and both values."""
    yield "TTFT, mean, ms", 0, 1000 * predicted.ttft_mean, 1000 * measured.ttft_mean
    for name, index in (("p50", 0), ("p90", 1), ("p99", 2)):
        yield f"TTFT, {name}, ms", 0, 1000 * predicted.ttft[index], 1000 * measured.ttft[index]
    for name, index in (("p50", 0), ("p90", 1), ("p99", 2)):
        yield (
            f"time per output token, {name}, ms",
            1,
            1000 * predicted.token_time[index],
            1000 * measured.token_time[index],
        )
    yield "output tokens/s", 0, predicted.tokens_per_second, measured.tokens_per_second
    yield "prompt tokens in the cache, %", 1, 100 * predicted.hits, 100 * measured.hits
