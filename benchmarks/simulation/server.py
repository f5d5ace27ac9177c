"""Play a trace on a real server, and measure what the server costs around its engines."""

from __future__ import annotations

import asyncio
import json
import os
import time
from array import array
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from fllm.testing import Server, serving
from simulation.cluster import Run, Served
from simulation.costs import ServerCosts
from simulation.trace import Trace, TraceRequest

TOKEN_IDS = (1000, 40_000)
"""Ids of blocks become these token ids: others may be special tokens."""
REQUESTS = 40
"""Requests of one token that measure the cost of a request."""
STREAMS, TOKENS = 8, 96
"""Streams that measure the cost of a token."""


class _Details(Struct):
    cached_tokens: int = 0


class _Usage(Struct):
    prompt_tokens_details: _Details | None = None


class _Choice(Struct):
    token_ids: list[int] | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


class Player:
    """Sends the requests of a trace at their times, or when the one before has ended."""

    def __init__(self, session: aiohttp.ClientSession, server: Server, trace: Trace) -> None:
        self._session, self._url, self._trace = session, f"{server.api}/completions", trace
        self._ended = [asyncio.Event() for _ in trace.requests]
        self._gaps = array("d")
        self._started = 0.0

    async def play(self) -> Run:
        """Play the trace to its end. Raise `RuntimeError` if the server reports an error."""
        self._started = time.perf_counter()
        served = await asyncio.gather(*(self._send(index) for index in range(len(self._trace.requests))))
        return Run(served=served, gaps=self._gaps)

    async def _send(self, index: int) -> Served:
        request = self._trace.requests[index]
        if request.previous >= 0:
            await self._ended[request.previous].wait()
        await asyncio.sleep(max(request.arrival - self._now(), 0))
        body = json.dumps(
            {
                "model": "m",
                "prompt": self._trace.prompt(index),
                "max_tokens": request.output_length,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
                "return_token_ids": True,
            }
        )
        served = Served(self._now(), 0, request.input_length)
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self._url, data=body, headers=headers) as response:
            if response.status != 200:
                raise RuntimeError(await response.text())
            async for line in response.content:
                if line.startswith(b"data: {"):
                    self._record(served, msgspec.json.decode(line[6:], type=_Chunk))
        self._ended[index].set()
        return served

    def _record(self, served: Served, chunk: _Chunk) -> None:
        if chunk.error is not None:
            raise RuntimeError(str(chunk.error))
        if chunk.usage is not None and chunk.usage.prompt_tokens_details is not None:
            served.cached = chunk.usage.prompt_tokens_details.cached_tokens
        tokens = sum(len(choice.token_ids or ()) for choice in chunk.choices)
        if not tokens:
            return
        now = self._now()
        if served.first < 0:
            served.first = now
        else:
            self._gaps.extend([(now - served.last) / tokens] * tokens)
        served.last = now
        served.tokens += tokens

    def _now(self) -> float:
        return time.perf_counter() - self._started


async def play(server: Server, trace: Trace) -> Run:
    """Play a trace on a server. The ids of its blocks are tokens of the model."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=1200)
    ) as session:
        return await Player(session, server, trace).play()


def flat_trace(count: int, prompt: int, output: int, first_id: int, gap: float = 0.0) -> Trace:
    """Return requests of equal lengths that share nothing, with ``gap`` seconds between them."""
    requests = [
        TraceRequest(gap * number, prompt, output, tuple(range(start, start + -(-prompt // 16))))
        for number in range(count)
        for start in [first_id + number * -(-prompt // 16)]
    ]
    return Trace(requests, 16)


def measure_server(model: str) -> ServerCosts:
    """Return the CPU seconds that the server and this client take around one engine."""
    with serving(model, "--served-model-name", "m", "--log-level", "warning") as server:
        asyncio.run(play(server, flat_trace(8, 40, 8, 1000)))
        requests = _cpu_of(server, flat_trace(REQUESTS, 40, 1, 2000, 0.05), REQUESTS)
        tokens = _cpu_of(server, flat_trace(STREAMS, 40, TOKENS, 3000), STREAMS * (TOKENS - 1))
    shares = [
        max(all_tokens - STREAMS * request / (STREAMS * (TOKENS - 1)), 0.0)
        for all_tokens, request in zip(tokens, requests, strict=True)
    ]
    return ServerCosts(
        request=requests[0], token=shares[0], client_request=requests[1], client_token=shares[1]
    )


def _cpu_of(server: Server, trace: Trace, count: int) -> tuple[float, float]:
    """Return the CPU seconds of the server without its engine, and of this process, divided by ``count``."""
    before = _cpu_seconds(server.process.pid), _cpu_seconds(os.getpid())
    asyncio.run(play(server, trace))
    after = _cpu_seconds(server.process.pid), _cpu_seconds(os.getpid())
    return (after[0] - before[0]) / count, (after[1] - before[1]) / count


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of the threads of a process (Linux, ``schedstat``)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
