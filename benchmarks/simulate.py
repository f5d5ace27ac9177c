"""Simulate replicas: the product's scheduler, prefix cache and routing in virtual time, with measured costs.

::

    python benchmarks/simulate.py --replicas 1,8,64,512                  # a shape of a public trace
    python benchmarks/simulate.py --replicas 64 --trace conversation_trace.jsonl --scale-lengths 0.25
    python benchmarks/simulate.py --replicas 64 --sweep routing          # or load-cap, or budgets
    python benchmarks/simulate.py --calibrate                            # measures the costs of this machine
    python benchmarks/simulate.py --check                                # predictions and real runs

A replica is an engine on a machine of its own. ``--load`` is the share of what one replica can serve: the
times of the trace are scaled to that rate. ``--trace`` reads the format of Mooncake's traces: a JSON object
per line with ``timestamp`` (milliseconds), ``input_length``, ``output_length`` and ``hash_ids``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from simulation.cluster import Settings
from simulation.costs import StepCosts, read_costs, write_costs
from simulation.report import Figures, table_head, table_row
from simulation.sweeps import SWEEPS, average, capacity
from simulation.trace import FILE_BLOCK, SHAPES, Trace, generate, read_trace, write_trace

from fllm.model import locate

COSTS = Path(__file__).parent / "simulation" / "costs.json"
SATURATING = 200
"""Requests that measure what one replica can serve."""


def traces(args: argparse.Namespace) -> list[Trace]:
    """Return the trace of the file, or one for each seed."""
    if args.trace:
        read = [read_trace(args.trace, args.block_tokens).first(args.requests)]
    else:
        read = [generate(SHAPES[args.shape], args.requests, seed) for seed in range(args.seeds)]
    return [trace if args.scale_lengths == 1 else trace.scaled(args.scale_lengths) for trace in read]


def describe(trace: Trace, costs: StepCosts) -> str:
    """Return what the trace is like, in a line."""
    cut = trace.within(costs.max_model_len)
    count = max(len(cut.requests), 1)
    tokens_in, tokens_out = (
        sum(getattr(each, name) for each in cut.requests) / count
        for name in ("input_length", "output_length")
    )
    longer = sum(
        before.input_length > after.input_length
        for before, after in zip(trace.requests, cut.requests, strict=True)
    )
    return (
        f"{len(cut.requests)} requests: {tokens_in:.0f} tokens in, {tokens_out:.0f} out (means); "
        f"{cut.ideal_hits():.1%} of the prompts come again; {longer} prompts cut to {costs.max_model_len}"
    )


def simulations(args: argparse.Namespace) -> Iterator[str]:
    """Yield a table with a row for each number of replicas, or for each setting of a sweep."""
    costs = read_costs(args.costs)
    base = Settings()
    played = traces(args)
    yield describe(played[0], costs)
    rate = args.rate or args.load * capacity(played[0].first(SATURATING), costs, base)
    yield f"{rate:.3f} requests/s for each replica"
    if args.write_trace:
        write_trace(played[0], args.write_trace)
    notes: list[str] = []
    for count in args.replicas:
        at_rate = [trace.at_rate(rate * count) for trace in played]
        settings = Settings(replicas=count)
        rows = SWEEPS[args.sweep](settings) if args.sweep else [(str(count), settings)]
        if args.sweep:
            yield f"{count} replicas"
        if args.sweep or count == args.replicas[0]:
            yield table_head(args.sweep or "replicas")
        for name, varied in rows:
            figures = average(at_rate, costs, varied)
            yield table_row(f"{name} (default)" if args.sweep and varied == settings else name, figures)
            if not args.sweep:
                notes.append(f"{count} replicas: {around(figures, costs)}")
    yield from notes


def around(figures: Figures, costs: StepCosts) -> str:
    """Return what one server around all these replicas has to do, in a line."""
    cores = figures.tokens_per_second * costs.server.token
    cores += figures.requests_per_second * (costs.server.request + figures.routing)
    return f"routing takes {1e6 * figures.routing:.0f} µs a request, the server {cores:.2f} cores"


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=_counts, default=[8], help="numbers of replicas, such as 1,8,512")
    parser.add_argument("--shape", choices=SHAPES, default="mooncake-conversation")
    parser.add_argument("--trace", type=Path, help="a file in Mooncake's format, instead of --shape")
    parser.add_argument("--block-tokens", type=int, default=FILE_BLOCK, help="tokens of a block of --trace")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--scale-lengths", type=float, default=1.0, help="factor of all lengths")
    parser.add_argument("--load", type=float, default=0.7, help="share of what a replica can serve")
    parser.add_argument("--rate", type=float, help="requests/s of each replica, instead of --load")
    parser.add_argument("--seeds", type=int, default=1, help="number of generated traces to average over")
    parser.add_argument("--sweep", choices=SWEEPS)
    parser.add_argument("--costs", type=Path, default=COSTS, help="measured costs of steps (JSON)")
    parser.add_argument("--write-trace", type=Path, help="write the trace in Mooncake's format")
    parser.add_argument("--calibrate", action="store_true", help="measure the costs and write --costs")
    parser.add_argument("--engines", type=_counts, default=[1, 2], help="numbers of engines to calibrate")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time: on a machine that is busy")
    parser.add_argument("--check", action="store_true", help="play the trace on a real server as well")
    parser.add_argument(
        "--model", default="", help="a model to calibrate or check; default: the embedded one"
    )
    parser.add_argument("--device", default="")
    parser.add_argument("--calibrate-engine", type=int, help=argparse.SUPPRESS)
    return parser


def _counts(text: str) -> list[int]:
    counts = [int(each) for each in text.split(",")]
    if min(counts) < 1:
        raise ValueError("numbers must be positive")
    return counts


def main() -> None:
    """Run what the options ask for. Exit with a message if a file or a value is wrong."""
    parser = options()
    args = parser.parse_args()
    if min(args.requests, args.seeds) < 1 or min(args.load, args.rate or 1, args.scale_lengths) <= 0:
        parser.error("--requests, --seeds, --load, --rate and --scale-lengths must be positive")
    try:
        run(args)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def run(args: argparse.Namespace) -> None:
    """Simulate a trace; or measure costs, or compare predictions with a real server."""
    model = args.model or str(locate().location)
    if args.calibrate_engine or args.calibrate:
        from simulation import calibration

        if args.calibrate_engine:
            calibration.print_engine(model, args.calibrate_engine, args.device, args.cpu_time)
        else:
            write_costs(args.costs, calibration.calibrate(model, args.engines, args.device, args.cpu_time))
        return
    if args.check:
        from simulation.check import compare

        counts = args.replicas if args.replicas != [8] else [1, 2]
        costs = read_costs(args.costs)
        [trace, *_] = traces(args)
        rate = args.rate or args.load * capacity(trace.first(SATURATING), costs, Settings())
        lines = compare(trace.at_rate(rate), args.costs, counts, model, cpu_time=args.cpu_time)
    else:
        lines = simulations(args)
    started = time.perf_counter()
    for line in lines:
        print(line, flush=True)
    print(f"({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
