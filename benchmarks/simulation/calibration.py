"""Measure what steps cost on a real engine, with every number of engines on the machine at once."""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from fllm.batching import BatchLimits
from simulation.costs import Features, StepCosts, features, fit
from simulation.engine import Engine, new_request
from simulation.real_engine import RealEngine, real_engine
from simulation.server import TOKEN_IDS, measure_server

LOADS = (
    (1, 40, 24),
    (2, 900, 12),
    (4, 300, 12),
    (1, 6000, 12),
    (8, 120, 12),
    (16, 60, 12),
    (16, 500, 6),
    (48, 40, 6),
)
"""Requests at once, the tokens of their prompts, and of their outputs."""
BUDGETS = (16, 48, 160, 512)
"""Prefill budgets: sizes of the chunks of prompts."""
PROMPTS = ((1, 700), (3, 250), (1, 3000))
"""Requests at once and the tokens of their prompts, for each of the budgets."""
LOAD_BUDGET = 256
"""That of the first loads."""


class Measured(Struct, frozen=True):
    """Steps of one engine."""

    steps: list[Features]
    seconds: list[float]
    kv_blocks: int
    block_size: int
    max_model_len: int


def measure(engine: RealEngine) -> Measured:
    """Run the loads on an engine."""
    size = engine.limits.block_size
    measured = Measured([], [], engine.kv_blocks, size, engine.max_model_len)
    _play(engine, engine.limits, measured, [_prompt(-1, 100)] * 4, 8)
    measured.steps.clear()  # it was only warmed up
    measured.seconds.clear()
    serial = 0
    for budget, requests, tokens, output in _loads(engine.limits):
        limits = replace(engine.limits, prefill_budget=budget, solo_prefill_budget=budget or 0)
        length = min(tokens, engine.max_model_len - output)
        prompts = [_prompt(serial + each, length) for each in range(requests)]
        serial += requests
        _play(engine, limits, measured, prompts, output)
    return measured


def _loads(limits: BatchLimits) -> Iterator[tuple[int | None, int, int, int]]:
    """Yield budgets, requests, and their tokens."""
    for requests, prompt, output in LOADS:
        yield limits.prefill_budget and LOAD_BUDGET, requests, prompt, output
    for budget in BUDGETS if limits.prefill_budget else ():
        for requests, prompt in PROMPTS:
            if budget > BUDGETS[0] or prompt < 1000:
                yield budget, requests, prompt, 1


def _prompt(serial: int, length: int) -> list[int]:
    """Return a prompt that no cache contains."""
    source = random.Random(serial)
    return [source.randrange(*TOKEN_IDS) for _ in range(length)]


def _play(
    real: RealEngine, limits: BatchLimits, measured: Measured, prompts: Sequence[list[int]], output: int
) -> None:
    """Run requests to their end, with a scheduler of their own, and record the steps."""
    engine = Engine(
        limits, kv_blocks=real.kv_blocks, max_model_len=real.max_model_len, clock=time.perf_counter
    )
    for index, prompt in enumerate(prompts):
        engine.add(index, new_request(index, prompt, output))
    started = real.clock()
    while batch := engine.begin():
        engine.end(batch, real.runner.execute(batch.rows))
        ended = real.clock()
        measured.steps.append(features(batch.rows))
        measured.seconds.append(ended - started)
        started = ended


def measure_engines(model: str, engines: int, device: str, cpu_time: bool) -> Measured:
    """Run the loads on several engines at once, each in a process, and return the steps of the first."""
    script = Path(__file__).parent.parent / "simulate.py"
    options = ["--calibrate-engine", str(engines), "--model", model, "--device", device]
    options += ["--cpu-time"] * cpu_time
    processes = [
        subprocess.Popen([sys.executable, str(script), *options], stdout=subprocess.PIPE)
        for _ in range(engines)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("an engine failed to run the loads; see its error above")
    return msgspec.json.decode(outputs[0], type=Measured)


def calibrate(model: str, engines: Sequence[int], device: str, cpu_time: bool) -> list[StepCosts]:
    """Measure each number of engines and the server, print how well the model fits, and return the costs."""
    server = measure_server(model)
    print(
        f"the server: {1e6 * server.request:.0f} µs for a request, {1e6 * server.token:.0f} for a token; "
        f"its client: {1e6 * server.client_request:.0f} and {1e6 * server.client_token:.0f}",
        flush=True,
    )
    all_costs = []
    for count in engines:
        measured = measure_engines(model, count, device, cpu_time)
        seconds, errors = fit(measured.steps, measured.seconds)
        absolute = np.abs(errors)
        costs = StepCosts(
            engines=count,
            seconds=seconds,
            server=server,
            kv_blocks=measured.kv_blocks,
            block_size=measured.block_size,
            max_model_len=measured.max_model_len,
            machine=f"{os.cpu_count()} cores, {_processor()}",
            model=Path(model).name,
            measured=time.strftime("%Y-%m-%d"),
            steps=len(errors),
            error=float(np.median(absolute)),
            error_90=float(np.percentile(absolute, 90)),
        )
        print(describe(costs), flush=True)
        all_costs.append(costs)
    return all_costs


def print_engine(model: str, engines: int, device: str, cpu_time: bool) -> None:
    """Measure one engine and print its steps as JSON."""
    with real_engine(model, engines, device, cpu_time=cpu_time) as engine:
        print(msgspec.json.encode(measure(engine)).decode())


def describe(costs: StepCosts) -> str:
    """Return what the parts of a step cost, in microseconds."""
    step, decode, token, end, context, pair = (1e6 * value for value in costs.seconds)
    return (
        f"{costs.engines} engines: a step {step:.0f} µs, a row that decodes {decode:.0f}, 1,000 tokens of "
        f"its context {1000 * context:.0f}, a prompt token {token:.0f}, 1,000 tokens before it "
        f"{1000 * pair:.0f}, the end of a prompt {end:.0f}; {costs.steps} steps, error {costs.error:.1%} "
        f"(median), {costs.error_90:.1%} (90th percentile)"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
