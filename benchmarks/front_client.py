"""A cheap load on one server: hand-written HTTP/1.1, events counted and not parsed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPT = " ".join(["apple river stone cloud garden window letter market"] * 8)
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
LAST_CHUNK = b"\r\n0\r\n\r\n"
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":(\d+)')


@dataclass(frozen=True)
class Load:
    """The result of one round of streams."""

    tokens_per_second: float
    events_per_second: float
    cpu: float
    """CPU seconds of the server's processes for each token."""


class Connection(asyncio.Protocol):
    """Sends requests and waits for the end of each response."""

    def __init__(self, end: bytes) -> None:
        self.events = 0
        self.tokens = 0
        self.received: list[bytes] | None = None
        """All received data, if it is to be checked."""
        self._end = end
        self._tail = b""
        self._events_before = 0
        self._completed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.received is not None:
            self.received.append(data)
        self.events += data.count(b"data: {")
        self._tail = self._tail[-1000:] + data
        if self._tail.endswith(self._end):
            # A server that reports no usage is counted as one token for each event.
            counts = [int(count) for count in COMPLETION_TOKENS.findall(self._tail)]
            self.tokens += max(counts, default=0) or self.events - self._events_before
            self._completed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._completed.done():
            self._completed.set_exception(exc or ConnectionError("the server closed the connection"))

    async def send(self, request: bytes) -> None:
        """Send a request and wait until its response is complete."""
        self._completed = asyncio.get_running_loop().create_future()
        self._tail, self._events_before = b"", self.events
        self._transport.write(request)
        await self._completed

    def close(self) -> None:
        """Close the connection."""
        self._completed.cancel()
        self._transport.close()


async def load(port: int, pid: int, *, streams: int, requests: int, tokens: int) -> Load:
    """Run one round: each connection sends the next request when a response is complete.

    The events of the first connection are checked.
    """
    connections = [await _connect(port, LAST_CHUNK) for _ in range(streams)]
    connections[0].received = []
    remaining = iter(range(requests))
    request = _request(port, tokens=tokens, stream=True)

    async def work(connection: Connection) -> None:
        for _ in remaining:
            await connection.send(request)

    cpu, started_at = cpu_seconds(pid), time.perf_counter()
    await asyncio.gather(*map(work, connections))
    seconds, cpu = time.perf_counter() - started_at, cpu_seconds(pid) - cpu
    _check(b"".join(connections[0].received))
    for connection in connections:
        connection.close()
    count = sum(connection.tokens for connection in connections)
    assert count >= requests * tokens, f"only {count} tokens of {requests * tokens} came"
    events = sum(connection.events for connection in connections)
    return Load(requests * tokens / seconds, events / seconds, cpu / (requests * tokens))


async def latency(port: int, *, requests: int) -> list[float]:
    """Return the seconds of each complete response of one token; requests follow each other."""
    connection = await _connect(port, b"}")
    request = _request(port, tokens=1, stream=False)
    seconds = []
    for _ in range(requests):
        started_at = time.perf_counter()
        await connection.send(request)
        seconds.append(time.perf_counter() - started_at)
    connection.close()
    return seconds


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of its descendants."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


async def _connect(port: int, end: bytes) -> Connection:
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(lambda: Connection(end), "127.0.0.1", port))[1]


def _request(port: int, *, tokens: int, stream: bool) -> bytes:
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
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def _check(data: bytes) -> None:
    """Check that a connection received chat completion chunks and a complete last event."""
    events = b"".join(_bodies(data)).split(b"\n\n")
    assert events.pop() == b"", "an event is not complete"
    assert events[-1] == b"data: [DONE]", events[-1]
    for event in events:
        body = event.removeprefix(b"data: ")
        assert body == b"[DONE]" or json.loads(body)["object"] == "chat.completion.chunk", event


def _bodies(data: bytes) -> Iterator[bytes]:
    while data:
        if data.startswith(b"HTTP/1.1 200"):
            _, _, data = data.partition(b"\r\n\r\n")
        size, _, data = data.partition(b"\r\n")
        end = int(size, 16)
        yield data[:end]
        data = data[end + 2 :]
