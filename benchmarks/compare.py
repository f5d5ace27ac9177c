"""Compare the server with everything that one can install, on the same weights and the same machine.

::

    make compare
    make compare ARGS="--only throughput --peers openvino,llama.cpp --rounds 3"
    python benchmarks/compare.py --models 135M --avx2 --directory DIRECTORY

Peers are installed from PyPI into environments of their own, and make their files from the GGUF file under
test. In each round, each server receives each load in turn; only one is awake at a time. Each measurement is
appended to a file, so a run that was broken off goes on with ``--resume``. The table is printed at the end,
and again with ``--report``. Run nothing else meanwhile, not even a build.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from comparison import machine
from comparison.contest import Contest
from comparison.loads import KL, LOADS, ONCE, QUICK, SIZES, bench_loads
from comparison.models import CONTEXT, MODELS, Model, file_of
from comparison.results import OURS, Cell, Kept, Results, Run
from comparison.servers import FAILURES, Engine, Ours, Server
from comparison.table import report
from peers import PEERS, Peer, Setup

QUICK_SCORED = 200
SCALES = {model.name: model.scale for model in MODELS.values()}


def main() -> None:
    """Run the command line."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all servers end
    options.directory.mkdir(parents=True, exist_ok=True)
    name = "prepared" if options.prepare else "compare"
    file = options.directory / f"{name}{'-avx2' if options.avx2 else ''}.jsonl"
    if not options.report:
        if not options.resume and file.exists():
            file.replace(file.with_suffix(".before.jsonl"))
        compare(options, Results(file))
    if not options.prepare:
        print(*report(Results(file), SCALES), sep="\n")


def compare(options: argparse.Namespace, results: Results) -> None:
    """Measure all models, and append what was measured to the results."""
    speed = machine.bandwidth(options.threads)
    run = Run(
        date=time.strftime("%d %B %Y"),
        machine=f"{machine.describe()}, {speed / 1e9:.1f} GB/s",
        threads=options.threads,
        rounds=options.rounds,
        avx2=options.avx2,
        quick=options.quick,
        command=shlex.join(["python", *sys.argv]),
        files=dict(results.run.files) if results.run else {},
        versions=dict(results.run.versions) if results.run else {},
    )
    print(run.machine, flush=True)
    results.begin(run)
    engines = {}
    for model in (MODELS[name] for name in options.models):
        setup = Setup(
            gguf=file_of(model, options.directory),
            directory=options.directory,
            threads=options.threads,
            context=CONTEXT,
            avx2=options.avx2,
        )
        run.files[model.name] = setup.gguf.stat().st_size
        others = prepared(model, setup, options.peers, results)
        engines[model] = setup, others
        for engine in (Ours(setup), *others.values()):
            run.versions[engine.name] = f"{engine.version()}; {engine.precision}"
            if options.prepare:
                start_once(engine)
    results.describe(run)
    if not options.prepare:
        measure(engines, options, results)


def measure(
    engines: Mapping[Model, tuple[Setup, Mapping[tuple[str, str], Peer]]],
    options: argparse.Namespace,
    results: Results,
) -> None:
    """Measure the servers of all models, which share the time."""
    begun = time.monotonic()
    once = [name for name in ONCE if wanted(name, options.only)]
    for index, (model, (setup, others)) in enumerate(engines.items()):
        sizes = QUICK if options.quick else SIZES[model.scale]
        loads = [load for load in bench_loads(sizes) if wanted(load.name, options.only)]
        contest = Contest(
            model, [Ours(setup), *others.values()], results, file=setup.gguf, threads=options.threads
        )
        deadline = begun + 60 * options.minutes * (index + 1) / len(engines)
        contest.run(loads, once, options.rounds, deadline)
        if "quality" in once:
            score(model, setup, others, results, QUICK_SCORED if options.quick else model.scored)


def start_once(engine: Engine) -> None:
    """Start a server and end it: at the first start, some engines compile."""
    server = Server(engine)
    begun = time.monotonic()
    try:
        server.start()
        print(f"{engine.name}: ready after {time.monotonic() - begun:.0f} s", flush=True)
    except FAILURES as reason:
        print(f"{engine.name}: {reason}", flush=True)
    finally:
        server.end()


def prepared(
    model: Model, setup: Setup, chosen: Sequence[str], results: Results
) -> dict[tuple[str, str], Peer]:
    """Return the chosen peers that are installed and have their files; the others become a note."""
    found = {}
    for kind, form in model.peers:
        name = f"{kind} {form}"
        if not any(text in name for text in chosen):
            continue
        print(f"{model.name}: preparing {name}", flush=True)
        try:
            peer = PEERS[kind](setup, form)
            peer.install()
            peer.prepare()
        except FAILURES as reason:
            results.add(Cell(model=model.name, load="start", server=name, round=0, error=str(reason)))
        else:
            found[kind, form] = peer
    return found


def score(
    model: Model,
    setup: Setup,
    others: Mapping[tuple[str, str], Peer],
    results: Results,
    tokens: int,
) -> None:
    """Measure the KL divergence of all. A peer's is kept for each of its versions."""
    from comparison.divergence import divergence_of_ours, divergence_of_peer

    kept = Kept(setup.directory / "quality.json")
    instructions = machine.AVX2 if setup.avx2 else {}
    begun = time.monotonic()
    values = machine.in_new_process(divergence_of_ours, setup, tokens, **instructions)
    add = partial(Cell, model=model.name, load=KL.load, round=0)
    results.add(add(server=OURS, values=values, seconds=time.monotonic() - begun))
    for (kind, form), peer in others.items():
        key = f"{model.name}, {tokens}, {peer.name}, {peer.version()}, {setup.avx2}"
        begun = time.monotonic()
        try:
            values = kept.get(key) or machine.in_new_process(
                divergence_of_peer, setup, kind, form, tokens, **instructions
            )
        except FAILURES as reason:
            results.add(add(server=peer.name, error=str(reason)))
        else:
            kept.put(key, values)
            results.add(add(server=peer.name, values=values, seconds=time.monotonic() - begun))
        print(f"{model.name}: quality of {peer.name} took {time.monotonic() - begun:.0f} s", flush=True)


def wanted(load: str, only: Sequence[str]) -> bool:
    """Return whether a load is among the chosen ones: ``throughput`` means each of its concurrencies."""
    return any(load == each or load.startswith(f"{each}-") for each in only) or not only


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=names, default=[*MODELS], metavar=",".join(MODELS))
    parser.add_argument("--only", type=names, default=[], metavar="LOAD,...", help=f"of {', '.join(LOADS)}")
    parser.add_argument(
        "--peers", type=names, default=[""], metavar="NAME,...", help="those whose names contain a text"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="stop measuring after this time, shared by the models",
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--avx2", action="store_true", help="let no engine use AVX-512")
    parser.add_argument("--quick", action="store_true", help="short loads, to see that everything works")
    parser.add_argument("--prepare", action="store_true", help="install and convert; measure nothing")
    parser.add_argument("--resume", action="store_true", help="go on with the last run")
    parser.add_argument("--report", action="store_true", help="print the table of the last run")
    parser.add_argument(
        "--directory",
        type=lambda text: Path(text).expanduser().resolve(),
        default=Path("~/.cache/furiosa-llm/compare").expanduser(),
        help="where models, environments and results are kept",
    )
    options = parser.parse_args()
    if unknown := [name for name in options.models if name not in MODELS]:
        parser.error(f"--models: {', '.join(unknown)} is not one of {', '.join(MODELS)}")
    if unknown := [name for name in options.only if name not in LOADS]:
        parser.error(f"--only: {', '.join(unknown)} is not one of {', '.join(LOADS)}")
    return options


def names(text: str) -> list[str]:
    """Return names that are separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    main()
