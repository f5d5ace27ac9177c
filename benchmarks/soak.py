"""Run thousands of requests of every kind, and print what the server still holds afterwards.

::

    python benchmarks/soak.py --requests 10000
    python benchmarks/soak.py --burst 1000

It starts the server itself, on the embedded model. The first form does everything that clients do: chats with
and without streaming, clients that disconnect during a stream or at once, invalid bodies, prompts of
thousands of words, constraints; `KINDS` defines the shares. Memory is the proportional set size (PSS) of the
server's processes, from ``/proc``. The second form opens the given number of streams at once and waits for
all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from fllm.testing import Server, serving

PROBE = Path(__file__).with_name("soak_probe.py")
SAMPLE_SECONDS = 2.0
"""Seconds between two memory samples."""
WARM_UP_SHARE = 0.25
"""Share of the requests after which nothing should grow any more."""
SETTLE_SECONDS = 3.0
"""Seconds after which an abandoned request should have left nothing."""
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school")
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage")
BAD = (
    b"",
    b"{",
    b"[" * 20_000,
    b'{"model": "m", "messages": []}',
    b'{"model": "m", "messages": "hi"}',
    b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 1e400}',
    b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": -1}',
    b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}',
)


class Soak:
    """A client that sends requests of every kind to a running server."""

    session: aiohttp.ClientSession

    def __init__(self, seed: int, outcomes: Counter[str]) -> None:
        self._random = random.Random(seed)
        self._outcomes = outcomes

    async def send_one(self) -> None:
        """Send a request of a random kind and count its outcome."""
        [kind] = self._random.choices(list(KINDS), [share for share, _ in KINDS.values()])
        _, send = KINDS[kind]
        try:
            outcome = await send(self)
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = f"failed: {type(error).__name__}"
        self._outcomes[f"{kind}: {outcome}"] += 1

    async def whole(self) -> str:
        """Request a chat without streaming."""
        async with self._chat() as response:
            return "ok" if (await response.json())["usage"]["completion_tokens"] else "empty"

    async def streamed(self) -> str:
        """Stream a chat to its end."""
        async with self._chat(stream=True, n=self._random.choice([1, 1, 1, 2])) as response:
            return "ok" if (await response.read()).endswith(b"[DONE]\n\n") else "cut"

    async def left(self) -> str:
        """Disconnect in the middle of a stream."""
        async with self._chat(stream=True, max_tokens=200, ignore_eos=True) as response:
            for _ in range(self._random.randrange(1, 20)):
                await response.content.readline()
            response.close()
        return "left"

    async def cancelled(self) -> str:
        """Disconnect before the first byte."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._random.random() * 0.2):
                return await self.whole()
        return "left"

    async def long(self) -> str:
        """Send a prompt of thousands of words that is not in the cache."""
        async with self._chat(words=self._random.randrange(1000, 4000), max_tokens=2) as response:
            return "ok" if (await response.json())["usage"]["completion_tokens"] else "empty"

    async def constrained(self) -> str:
        """Request output that must match a pattern."""
        async with self._chat(guided_regex=f"[a-z]{{{self._random.randrange(1, 9)}}}") as response:
            return "ok" if response.status == 200 else str(response.status)

    async def bad(self) -> str:
        """Send an invalid body."""
        headers = {"content-type": "application/json"}
        body = self._random.choice(BAD)
        async with self.session.post("/v1/chat/completions", data=body, headers=headers) as response:
            return "refused" if response.status == 400 else str(response.status)

    def _chat(self, words: int = 12, **fields: Any) -> Any:
        text = " ".join(self._random.choices(WORDS, k=words))
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 12, **fields}
        return self.session.post("/v1/chat/completions", json=body)


KINDS: dict[str, tuple[float, Callable[[Soak], Awaitable[str]]]] = {
    "whole": (0.3, Soak.whole),
    "streamed": (0.3, Soak.streamed),
    "left": (0.12, Soak.left),
    "cancelled": (0.12, Soak.cancelled),
    "bad": (0.1, Soak.bad),
    "constrained": (0.05, Soak.constrained),
    "long": (0.01, Soak.long),
}


def main() -> None:
    """Start a server, load it, and print what it holds before and after."""
    options = parse_arguments()
    arguments = (
        "--plugin",
        PROBE,
        "--served-model-name",
        "m",
        "--log-level",
        "warning",
        *options.server_options,
    )
    with serving(*arguments) as server:
        asyncio.run(burst(server, options.burst) if options.burst else soak(server, options))


async def soak(server: Server, options: argparse.Namespace) -> None:
    """Send the requests in two parts: pools and caches fill during the first, and the second counts."""
    monitor, outcomes = MemoryMonitor(server), Counter[str]()
    first = int(WARM_UP_SHARE * options.requests)
    monitoring = asyncio.create_task(monitor.run())
    await part(server, Soak(options.seed, outcomes), first, options.streams)
    before, monitor.samples = await holdings(server), []
    await part(server, Soak(options.seed + 1, outcomes), options.requests - first, options.streams)
    monitoring.cancel()
    after = await holdings(server)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:7} {outcome}")
    warm, late = monitor.growth()
    print(f"memory after warm-up {warm:.0f} MB, at the end {late:.0f} MB: {late / warm - 1:+.1%}")
    for name, count in after.items():
        print(f"{name:24} {before[name]:>9g} after warm-up {count:>9g} at the end")


async def part(server: Server, client: Soak, requests: int, streams: int) -> None:
    """Send ``requests`` requests, then wait until abandoned ones are aborted."""
    remaining = iter(range(requests))

    async def work() -> None:
        for _ in remaining:
            await client.send_one()

    async with connected(server) as client.session:
        await asyncio.gather(*(work() for _ in range(streams)))
    await asyncio.sleep(SETTLE_SECONDS)


async def burst(server: Server, streams: int) -> None:
    """Open ``streams`` streams at once."""
    client, monitor = Soak(0, Counter()), MemoryMonitor(server)
    monitoring = asyncio.create_task(monitor.run())
    async with connected(server) as client.session:
        started_at = time.perf_counter()
        outcomes = Counter(await asyncio.gather(*(client.streamed() for _ in range(streams))))
    monitoring.cancel()
    print(f"{streams} streams in {time.perf_counter() - started_at:.0f} s: {dict(outcomes)}")
    print(f"memory at most {max(monitor.samples):.0f} MB")


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client without connection limits; unread responses are closed."""
    unlimited = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(server.url, connector=unlimited, timeout=timeout) as session:
        yield session


class MemoryMonitor:
    """Samples the memory of a server while it works."""

    def __init__(self, server: Server) -> None:
        self.samples: list[float] = []
        """Samples in MB."""
        self._server = server

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self.samples.append(sum(map(memory_mb, processes(self._server))))
            await asyncio.sleep(SAMPLE_SECONDS)

    def growth(self) -> tuple[float, float]:
        """Return the medians in MB of the first samples and of the last."""
        size = max(len(self.samples) // 5, 1)
        return statistics.median(self.samples[:size]), statistics.median(self.samples[-size:])


async def holdings(server: Server) -> dict[str, float]:
    """Return everything that could be left over, while one connection is open."""
    async with connected(server) as session:
        async with session.get("/soak") as response:
            counts: dict[str, float] = await response.json()
        async with session.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        for pid in processes(server):
            for what, folder in (("threads", "task"), ("file descriptors", "fd")):
                counts[what] = counts.get(what, 0) + len(os.listdir(f"/proc/{pid}/{folder}"))
    counts["processes"] = len(processes(server))
    for line in lines:
        name, _, value = line.removeprefix("furiosa_llm:").partition("{")
        if name in GAUGES:
            counts[name] = float(value.rpartition(" ")[2])
    return counts


def processes(server: Server) -> list[int]:
    """Return the process ids of the server and of its descendants."""
    pids = [server.process.pid]
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            pids += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return pids


def memory_mb(pid: int) -> float:
    """Return the proportional set size (PSS) in MB; memory that processes share is divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Load a server with everything that clients do.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=48, help="requests at once")
    parser.add_argument("--burst", type=int, help="open this number of streams at once instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "server_options",
        metavar="options",
        nargs="*",
        default=["--enable-metrics"],
        help="of furiosa-llm serve",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
