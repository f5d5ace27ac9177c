"""Measure all targets in turn, round after round, so that noise on the machine affects all of them alike."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from fllm_bench.client import Client, ConnectedTarget, connect
from fllm_bench.prompts import Prompts
from fllm_bench.report import MeasuredTarget, Report, compare_results, summarize
from fllm_bench.target import RequestOptions, Target
from fllm_bench.workload import Sample, Workload

ShowProgress = Callable[[str], None]


async def compare(
    workload: Workload,
    targets: Sequence[Target],
    options: RequestOptions,
    *,
    rounds: int,
    show_progress: ShowProgress,
    seed: str | None = None,
) -> Report:
    """Measure each target once per round; the report compares the first with the others.

    Calls ``show_progress`` with a description of each step. With a ``seed``, all targets receive the same
    prompts, in each run. Without one, no cache contains a prompt from an earlier run or another target.
    Raise `UserError` if a server can't be reached.
    """
    run = secrets.token_hex(8) if seed is None else seed
    connected_targets = []
    for target in targets:
        show_progress(f"connecting to {target.name}")
        connected_targets.append(await connect(target, options, Prompts(run).text(16)))
    samples: dict[tuple[str, int], list[Sample]] = {}
    for index in range(rounds):
        for concurrency in workload.concurrencies:
            for connected in connected_targets:
                name = connected.target.name
                show_progress(f"round {index + 1} of {rounds}, {concurrency} at a time, {name}")
                prompts = Prompts(f"{run} {index} {concurrency} {name if seed is None else ''}")
                # A new client each time: some servers close idle connections after seconds.
                async with Client(connected) as client:
                    sample = await workload.measure(client, concurrency, prompts)
                samples.setdefault((name, concurrency), []).append(sample)
    return _report(workload, connected_targets, samples, rounds)


def _report(
    workload: Workload,
    connected_targets: Sequence[ConnectedTarget],
    samples: dict[tuple[str, int], list[Sample]],
    rounds: int,
) -> Report:
    names = [connected.target.name for connected in connected_targets]
    results = [
        [summarize(name, concurrency, samples[name, concurrency]) for name in names]
        for concurrency in workload.concurrencies
    ]
    return Report(
        workload=workload,
        rounds=rounds,
        targets=[
            MeasuredTarget(name=connected.target.name, url=connected.target.url, model=connected.model)
            for connected in connected_targets
        ],
        metrics=workload.metrics,
        results=[result for row in results for result in row],
        ratios=[compare_results(row, workload.metrics) for row in results if len(row) > 1],
    )
