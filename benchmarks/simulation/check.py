"""Compare predictions for few replicas with runs of the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from fllm.testing import serving
from simulation.cluster import Cluster, Run, Settings, simulate
from simulation.costs import StepCosts, read_costs
from simulation.real_engine import real_engine
from simulation.report import Figures, figures
from simulation.server import TOKEN_IDS, flat_trace, play
from simulation.trace import Trace

WARM_UP = 8
"""Requests before the trace: the first ones of a server take longer."""


def compare(
    trace: Trace, costs_file: Path, counts: Sequence[int], model: str, *, cpu_time: bool
) -> Iterator[str]:
    """Yield a table for each number of replicas, all of them on this machine.

    With ``cpu_time``, real engines compute the steps of a simulation, which take their CPU time. That checks
    the costs of steps on a machine that is busy, but nothing around the engines.
    """
    trace = trace.without_outputs().with_tokens(*TOKEN_IDS)
    for count in counts:
        costs = read_costs(costs_file, count)
        played = trace.within(costs.max_model_len)
        settings = Settings(replicas=count, shared=not cpu_time)
        predicted = figures(simulate(played, costs, settings))
        if cpu_time:
            run = _run_engines(played, costs, settings, model)
        else:
            run = _run_server(played, settings, model)
        measured = figures(run)
        yield f"--replicas {count}: {len(played.requests)} requests"
        yield "| | predicted | measured | error |\n|---|---|---|---|"
        for name, digits, expected, actual in _pairs(predicted, measured):
            error = f"{expected / actual - 1:+.0%}" if actual else ""
            yield f"| {name} | {expected:.{digits}f} | {actual:.{digits}f} | {error} |"


def _run_server(trace: Trace, settings: Settings, model: str) -> Run:
    """Play a trace on a real server."""
    options = [model, "--served-model-name", "m", "--log-level", "warning"]
    with serving(*options, "--replicas", str(settings.replicas)) as server:
        asyncio.run(play(server, flat_trace(WARM_UP, 100, 16, TOKEN_IDS[0])))
        return asyncio.run(play(server, trace))


def _run_engines(trace: Trace, costs: StepCosts, settings: Settings, model: str) -> Run:
    """Play a trace in virtual time over real engines in this process."""
    with ExitStack() as stack:
        engines = [
            stack.enter_context(real_engine(model, settings.replicas, "", cpu_time=True))
            for _ in range(settings.replicas)
        ]
        executors = [engine.execute for engine in engines]
        Cluster(flat_trace(WARM_UP, 100, 16, TOKEN_IDS[0]), costs, settings, executors).run()
        return Cluster(trace, costs, settings, executors).run()


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
