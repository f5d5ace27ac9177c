"""Months in minutes: thousands of requests of every kind, and what the server still holds afterwards.

::

    python benchmarks/soak.py --requests 10000
    python benchmarks/soak.py --burst 1000

It starts the server itself, on the embedded model. The first form asks for all that clients do: chats whole
and streamed, clients that leave in the middle or at once, bodies that are no request, prompts of thousands of
words, constraints; `KINDS` says in what shares. Memory is the proportional set size (PSS) of the server's
processes, from ``/proc``. The second form opens so many streams at once, and waits for all of them.
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
EVERY = 2.0
"""Seconds between two looks at the memory."""
WARM_UP = 0.25
"""The share of the requests after which nothing should grow any more."""
SETTLED = 3.0
"""Seconds after which nothing of an abandoned request should be left."""
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
    """Everything that one client does to a running server."""

    session: aiohttp.ClientSession

    def __init__(self, seed: int, outcomes: Counter[str]) -> None:
        self._random = random.Random(seed)
        self._outcomes = outcomes

    async def one(self) -> None:
        """A request of a random kind; what becomes of it is counted."""
        [kind] = self._random.choices(list(KINDS), [share for share, _ in KINDS.values()])
        _, ask = KINDS[kind]
        try:
            outcome = await ask(self)
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = f"failed: {type(error).__name__}"
        self._outcomes[f"{kind}: {outcome}"] += 1

    async def whole(self) -> str:
        """A chat, answered whole."""
        async with self._chat() as answer:
            return "ok" if (await answer.json())["usage"]["completion_tokens"] else "empty"

    async def streamed(self) -> str:
        """A chat, read to its end."""
        async with self._chat(stream=True, n=self._random.choice([1, 1, 1, 2])) as answer:
            return "ok" if (await answer.read()).endswith(b"[DONE]\n\n") else "cut"

    async def left(self) -> str:
        """A client that goes away in the middle of a stream."""
        async with self._chat(stream=True, max_tokens=200, ignore_eos=True) as answer:
            for _ in range(self._random.randrange(1, 20)):
                await answer.content.readline()
            answer.close()
        return "left"

    async def cancelled(self) -> str:
        """A client that does not wait for the first byte."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._random.random() * 0.2):
                return await self.whole()
        return "left"

    async def long(self) -> str:
        """A prompt of thousands of words that no cache knows."""
        async with self._chat(words=self._random.randrange(1000, 4000), max_tokens=2) as answer:
            return "ok" if (await answer.json())["usage"]["completion_tokens"] else "empty"

    async def constrained(self) -> str:
        """An answer that must be of one form."""
        async with self._chat(guided_regex=f"[a-z]{{{self._random.randrange(1, 9)}}}") as answer:
            return "ok" if answer.status == 200 else str(answer.status)

    async def bad(self) -> str:
        """What is no request."""
        headers = {"content-type": "application/json"}
        body = self._random.choice(BAD)
        async with self.session.post("/v1/chat/completions", data=body, headers=headers) as answer:
            return "refused" if answer.status == 400 else str(answer.status)

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
    """Start a server, load it, and say what it holds before and after."""
    asked = arguments()
    options = ("--plugin", PROBE, "--served-model-name", "m", "--log-level", "warning", *asked.options)
    with serving(*options) as server:
        asyncio.run(burst(server, asked.burst) if asked.burst else soak(server, asked))


async def soak(server: Server, asked: argparse.Namespace) -> None:
    """The requests, in two parts: pools and caches fill in the first, and the second counts."""
    watch, outcomes = Watch(server), Counter[str]()
    first = int(WARM_UP * asked.requests)
    watching = asyncio.create_task(watch.run())
    await part(server, Soak(asked.seed, outcomes), first, asked.streams)
    before, watch.seen = await holdings(server), []
    await part(server, Soak(asked.seed + 1, outcomes), asked.requests - first, asked.streams)
    watching.cancel()
    after = await holdings(server)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:7} {outcome}")
    warm, late = watch.growth()
    print(f"memory after warm-up {warm:.0f} MB, at the end {late:.0f} MB: {late / warm - 1:+.1%}")
    for name, count in after.items():
        print(f"{name:24} {before[name]:>9g} after warm-up {count:>9g} at the end")


async def part(server: Server, client: Soak, requests: int, streams: int) -> None:
    """So many requests; then wait until what clients left behind is aborted."""
    left = iter(range(requests))

    async def work() -> None:
        for _ in left:
            await client.one()

    async with connected(server) as client.session:
        await asyncio.gather(*(work() for _ in range(streams)))
    await asyncio.sleep(SETTLED)


async def burst(server: Server, streams: int) -> None:
    """So many streams at once."""
    client, watch = Soak(0, Counter()), Watch(server)
    watching = asyncio.create_task(watch.run())
    async with connected(server) as client.session:
        began = time.perf_counter()
        outcomes = Counter(await asyncio.gather(*(client.streamed() for _ in range(streams))))
    watching.cancel()
    print(f"{streams} streams in {time.perf_counter() - began:.0f} s: {dict(outcomes)}")
    print(f"memory at most {max(watch.seen):.0f} MB")


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without limits of its own; whatever is not read is closed."""
    unlimited = aiohttp.TCPConnector(limit=0)
    patience = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(server.url, connector=unlimited, timeout=patience) as session:
        yield session


class Watch:
    """The memory of a server while it works."""

    def __init__(self, server: Server) -> None:
        self.seen: list[float] = []
        """MB, at each look."""
        self._server = server

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.seen.append(sum(map(memory, processes(self._server))))
            await asyncio.sleep(EVERY)

    def growth(self) -> tuple[float, float]:
        """Medians in MB, of the first looks and of the last."""
        few = max(len(self.seen) // 5, 1)
        return statistics.median(self.seen[:few]), statistics.median(self.seen[-few:])


async def holdings(server: Server) -> dict[str, float]:
    """What could be left behind, while one connection is open."""
    async with connected(server) as session:
        async with session.get("/soak") as answer:
            held: dict[str, float] = await answer.json()
        async with session.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        for pid in processes(server):
            for what, folder in (("threads", "task"), ("file descriptors", "fd")):
                held[what] = held.get(what, 0) + len(os.listdir(f"/proc/{pid}/{folder}"))
    held["processes"] = len(processes(server))
    for line in lines:
        name, _, value = line.removeprefix("furiosa_llm:").partition("{")
        if name in GAUGES:
            held[name] = float(value.rpartition(" ")[2])
    return held


def processes(server: Server) -> list[int]:
    """The server's process, and all below it."""
    pids = [server.process.pid]
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            pids += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return pids


def memory(pid: int) -> float:
    """MB, of which what several processes share counts in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Load a server with everything that clients do.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=48, help="requests at once")
    parser.add_argument("--burst", type=int, help="open so many streams at once instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("options", nargs="*", default=["--enable-metrics"], help="of furiosa-llm serve")
    return parser.parse_args()


if __name__ == "__main__":
    main()
