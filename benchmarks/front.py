"""What the way from the engine to the client costs: an instant engine, one core for the server, another for us.

::

    python benchmarks/front.py --peer "LitServe=/path/to/litserve's/python benchmarks/echo_litserve.py {port}"

Ours runs with both parsers on, over ``echo_backend.py``: in one process, and with the engine in a process of its own
on the same core. A peer is any command that answers `/v1/chat/completions` on ``{port}``. All servers run
from the start and are measured in turn, so that a noisy machine is unfair to all alike; the table has medians.

*tokens/s* are those that reached the clients; *events/s* the SSE events that carried them; *CPU* is the server's own
time for a token, which a busy machine changes least. *latency* is that of whole answers of one token, one request at
a time over one connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

HERE = Path(__file__).parent
OURS = (
    f"{sys.executable} -m fllm_api serve --host 127.0.0.1 --port {{port}} --plugin {HERE / 'echo_backend.py'}"
    " --backend echo --tool-call-parser llama3_json --reasoning-parser deepseek_r1 --enable-metrics"
    " --backend-option tokens_per_step={tokens_per_step}"
)
PROMPT = " ".join(["apple river stone cloud garden window letter market"] * 8)
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
USAGE = re.compile(rb'"completion_tokens":(\d+)')
READY_SECONDS = 60


@dataclass(frozen=True)
class Load:
    """One round of streams."""

    tokens_per_second: float
    events_per_second: float
    cpu: float
    """Seconds of the server's processes for each token."""


class Stream(asyncio.Protocol):
    """One connection: counts the events of its answers without reading them."""

    def __init__(self, ended: bytes) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.events = 0
        self.tokens = 0
        self.kept: list[bytes] | None = None
        """What came, where somebody wants to read it."""
        self._ended = ended
        self._tail = b""
        self._events_before = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.kept is not None:
            self.kept.append(data)
        self.events += data.count(b"data: {")
        self._tail = self._tail[-1000:] + data
        if self._tail.endswith(self._ended):
            told = [int(count) for count in USAGE.findall(self._tail)]
            self.tokens += (told and told[-1]) or self.events - self._events_before
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionError("the server closed the connection"))

    def ask(self, request: bytes) -> None:
        """Send a request; ``answered`` is done when its answer is complete."""
        assert self._transport is not None
        self.answered = asyncio.get_running_loop().create_future()
        self._tail, self._events_before = b"", self.events
        self._transport.write(request)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


def request(port: int, *, tokens: int, stream: bool) -> bytes:
    """A chat request over HTTP/1.1."""
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": PROMPT}],
        "tools": [{"type": "function", "function": TOOL}],
        "max_tokens": tokens,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    )
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


async def connect(port: int, ended: bytes) -> Stream:
    _, stream = await asyncio.get_running_loop().create_connection(lambda: Stream(ended), "127.0.0.1", port)
    return stream


async def load(port: int, pid: int, *, streams: int, requests: int, tokens: int) -> Load:
    """All requests of one round; each connection asks again as soon as it is answered."""
    connections = [await connect(port, b"\r\n0\r\n\r\n") for _ in range(streams)]
    connections[0].kept = []
    left = iter(range(requests))
    asked = request(port, tokens=tokens, stream=True)

    async def work(stream: Stream) -> None:
        for _ in left:
            stream.ask(asked)
            await stream.answered

    before, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.gather(*map(work, connections))
    seconds, cpu = time.perf_counter() - began, cpu_seconds(pid) - before
    check(b"".join(connections[0].kept))
    for connection in connections:
        connection.close()
    count = sum(connection.tokens for connection in connections)
    assert requests * tokens <= count <= requests * (tokens + 1), (
        f"{count} tokens came for {requests} answers"
    )
    return Load(count / seconds, sum(connection.events for connection in connections) / seconds, cpu / count)


async def latency(port: int, *, requests: int) -> list[float]:
    """Seconds of each whole answer of one token."""
    connection = await connect(port, b"}")
    asked = request(port, tokens=1, stream=False)
    seconds = []
    for _ in range(requests):
        began = time.perf_counter()
        connection.ask(asked)
        await connection.answered
        seconds.append(time.perf_counter() - began)
    connection.close()
    return seconds


def check(data: bytes) -> None:
    """Every event of a connection is JSON, and its answers end."""
    body = b"".join(chunk for chunk in dechunked(data))
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event.startswith(b"data: ")]
    assert events, "there was no event"
    assert events[-1] == b"[DONE]", events[-1]
    for event in events:
        assert event == b"[DONE]" or json.loads(event)["object"] == "chat.completion.chunk"


def dechunked(data: bytes) -> Iterator[bytes]:
    """The chunks of a connection's answers."""
    while data:
        if data.startswith(b"HTTP/1.1 200"):
            data = data.partition(b"\r\n\r\n")[2]
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        yield data[:length]
        data = data[length + 2 :]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, and of all that descend from it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


@contextmanager
def running(command: str, core: int, **values: int) -> Iterator[tuple[int, int]]:
    """A server on one core: its port and its process, from when it answers to its end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        shlex.split(command.format(port=port, **values)),
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
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
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answered = on_loop(lambda: latency(port, requests=1))
        except OSError:
            time.sleep(0.2)
        else:
            assert answered
            return
    raise SystemExit(f"{process.args} did not start")


def on_loop(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


def table(loads: dict[str, list[Load]], latencies: dict[str, list[float]]) -> str:
    """Markdown; ratios are the first server's tokens/s to each other's."""
    rows = ["| server | tokens/s | events/s | CPU µs/token | latency p50 ms | ours / it |", "|---" * 6 + "|"]
    rates = {name: statistics.median(run.tokens_per_second for run in runs) for name, runs in loads.items()}
    ours = next(iter(rates.values()))
    for name, runs in loads.items():
        events = statistics.median(run.events_per_second for run in runs)
        cpu = 1e6 * statistics.median(run.cpu for run in runs)
        p50 = 1e3 * statistics.median(latencies[name])
        rows.append(
            f"| {name} | {rates[name]:,.0f} | {events:,.0f} | {cpu:.1f} | {p50:.2f} | {ours / rates[name]:.1f} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=COMMAND", help="{port} is filled in"
    )
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--requests", type=int, default=128, help="in each round")
    parser.add_argument("--tokens", type=int, default=512, help="of each answer")
    parser.add_argument("--tokens-per-step", type=int, default=1, help="of our engine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", default="0,1", help="the servers', and ours")
    arguments = parser.parse_args()
    core, client = map(int, arguments.cores.split(","))
    os.sched_setaffinity(0, {client})
    commands = {"ours": f"{OURS} --no-engine-process", "ours, engine apart": OURS}
    commands |= dict(peer.split("=", 1) for peer in arguments.peer)
    loads: dict[str, list[Load]] = {name: [] for name in commands}
    latencies: dict[str, list[float]] = {name: [] for name in commands}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running(command, core, tokens_per_step=arguments.tokens_per_step))
            for name, command in commands.items()
        }
        for turn in range(arguments.rounds):
            for name, (port, pid) in servers.items():
                size = {
                    "streams": arguments.streams,
                    "requests": arguments.requests,
                    "tokens": arguments.tokens,
                }
                run: Load = on_loop(lambda port=port, pid=pid, size=size: load(port, pid, **size))
                loads[name].append(run)
                latencies[name] += on_loop(lambda port=port: latency(port, requests=200))
                print(f"round {turn + 1}, {name}: {run.tokens_per_second:,.0f} tokens/s", flush=True)
    print(table(loads, latencies))


if __name__ == "__main__":
    main()
