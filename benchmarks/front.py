"""Measure the overhead between engine and client, with an instant engine on the server's core.

::

    pip install litserve   # into an environment of its own
    python benchmarks/front.py --peer "LitServe=/its/python benchmarks/echo_litserve.py {port}"

Our server runs with both parsers on ``echo_backend.py``, which generates one token in each step of a
sequence: in one process, and with the engine in its own process. A peer is any command that serves
`/v1/chat/completions` on ``{port}``. All servers run from the start and are measured in turn, so that a noisy
machine affects all alike. The table has medians.

The load does not sleep while it waits: on a virtual machine, a write that wakes another core costs the writer
more than the rest of the write, which it would not across a network. ``--sleep`` lets it sleep.

*events/s* counts the chunks that carried the tokens: fewer if the engine is ahead and tokens share a chunk.
*CPU* is the time of the server's processes, including the engine's. *p50* is of complete responses of one
token.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from front_client import Load, latency, load

T = TypeVar("T")

OURS = (
    f"{sys.executable} -m fllm_api serve --host 127.0.0.1 --port {{port}} --log-level warning"
    f" --plugin {Path(__file__).with_name('echo_backend.py')} --backend echo"
    " --tool-call-parser llama3_json --reasoning-parser deepseek_r1 --enable-metrics"
)
READY_SECONDS = 60


@contextmanager
def running(command: str, core: int) -> Iterator[tuple[int, int]]:
    """Run a server on one core; yield its port and process id once it responds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *shlex.split(command.replace("{port}", str(port)))],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        yield port, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once the server responds; exit if it does not start."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            on_loop(partial(latency, port, requests=1))
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"{process.args} did not start")


def on_loop(work: Callable[[], Coroutine[Any, Any, T]], *, sleeps: bool = False) -> T:
    """Run the work on its own event loop, which never sleeps unless ``sleeps`` is set."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if not sleeps:
            spin(runner.get_loop())
        return runner.run(work())


def spin(loop: asyncio.AbstractEventLoop) -> None:
    """Keep the loop busy in every turn."""
    loop.call_soon(spin, loop)


def table(loads: dict[str, list[Load]], latencies: dict[str, list[float]]) -> str:
    """Format medians as Markdown, with the first server's throughput over each other's."""
    rows = ["| server | tokens/s | events/s | CPU µs/token | p50 ms | ours / it |", "|---" * 6 + "|"]
    rates = {name: statistics.median(run.tokens_per_second for run in runs) for name, runs in loads.items()}
    ours = next(iter(rates.values()))
    for name, runs in loads.items():
        events = statistics.median(run.events_per_second for run in runs)
        cpu = 1e6 * statistics.median(run.cpu for run in runs)
        p50 = 1e3 * statistics.median(latencies[name])
        cells = f"{rates[name]:,.0f} | {events:,.0f} | {cpu:.1f} | {p50:.2f} | {ours / rates[name]:.1f}"
        rows.append(f"| {name} | {cells} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--requests", type=int, default=128, help="in each round")
    parser.add_argument("--tokens", type=int, default=512, help="of each response")
    parser.add_argument("--tokens-per-step", type=int, default=1, help="of our engine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", default="0,1", help="the servers', and the load's")
    parser.add_argument("--sleep", action="store_true", help="let the load sleep while it waits for data")
    arguments = parser.parse_args()
    core, client = map(int, arguments.cores.split(","))
    os.sched_setaffinity(0, {client})
    ours = f"{OURS} --backend-option tokens_per_step={arguments.tokens_per_step}"
    commands = {"ours": f"{ours} --no-engine-process", "ours, engine apart": ours}
    commands |= dict(peer.split("=", 1) for peer in arguments.peer)
    size = {"streams": arguments.streams, "requests": arguments.requests, "tokens": arguments.tokens}
    loads: dict[str, list[Load]] = {name: [] for name in commands}
    latencies: dict[str, list[float]] = {name: [] for name in commands}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(each, core)) for name, each in commands.items()}
        for turn in range(arguments.rounds):
            for name, (port, pid) in servers.items():
                loads[name].append(on_loop(partial(load, port, pid, **size), sleeps=arguments.sleep))
                latencies[name] += on_loop(partial(latency, port, requests=200), sleeps=arguments.sleep)
                rate = loads[name][-1].tokens_per_second
                print(f"round {turn + 1}, {name}: {rate:,.0f} tokens/s", flush=True)
    print(table(loads, latencies))


if __name__ == "__main__":
    main()
