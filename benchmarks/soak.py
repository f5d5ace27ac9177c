"""Run thousands of requests of every kind, and print what the server still holds afterwards.

::

    python benchmarks/soak.py --requests 10000
    python benchmarks/soak.py --burst 1000
    python benchmarks/soak.py --hostile --seconds 180

It starts the server itself, on the embedded model. The first form does everything that clients do: chats with
and without streaming, clients that disconnect during a stream or at once, invalid bodies, prompts of
thousands of words, constraints; `KINDS` defines the shares. Memory is the proportional set size (PSS) of the
server's processes, from ``/proc``. The second form opens the given number of streams at once and waits for
all of them.

The third form measures what a hostile client costs others: a few normal streams run alone and next to each
of the `ATTACKS` in turn, which another process sends with a key of its own. Its table has the time to first
token (TTFT) and the rates of the normal ones, alone and next to the hostile one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from attacks import ATTACKS
from msgspec import Struct

from fllm.testing import Server, serving

ATTACKER = Path(__file__).with_name("attacks.py")
PROBE = Path(__file__).with_name("soak_probe.py")
SAMPLE_SECONDS = 2.0
"""Seconds between two memory samples."""
WARM_UP_SHARE = 0.25
"""Share of the requests after which nothing should grow any more."""
SETTLE_SECONDS = 3.0
"""Seconds after which an abandoned request should have left nothing."""
NORMAL_KEY, HOSTILE_KEY = "normal", "hostile"
NORMAL_STREAMS = 4
"""Normal streams next to a hostile client, few enough for two cores."""
PAUSE_SECONDS = 0.2
"""Mean pause of a normal client between two requests."""
PATIENCE_SECONDS = 120.0
"""Time after which a normal request counts as failed."""
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
    if options.hostile:
        with serving(*arguments, FURIOSA_LLM_API_KEY=f"{NORMAL_KEY},{HOSTILE_KEY}") as server:
            asyncio.run(hostile(server, options.seconds))
        return
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


class Noticed(Struct):
    """What normal clients notice."""

    ttft: list[float]
    """Seconds to the first token of each request."""
    rates: list[float]
    """Tokens per second of each request, after its first token."""
    failures: Counter[str]

    def row(self, name: str) -> str:
        """Return a line of the table."""
        p50, p99 = quantile(self.ttft, 0.5), quantile(self.ttft, 0.99)
        rate, failed = quantile(self.rates, 0.5), self.failures.total()
        return f"{name:28} {len(self.ttft):8} {failed:8} {p50:8.3f} {p99:8.3f} {rate:8.1f}"


async def hostile(server: Server, seconds: float) -> None:
    """Measure normal clients alone and next to each attack in turn, ``seconds`` in all for each."""
    slot = seconds / len(ATTACKS)
    alone, attacked = noticed_by([]), noticed_by([])
    columns = ("requests", "failures", "TTFT p50", "TTFT p99", "tokens/s")
    print(f"{'normal clients':28} {' '.join(f'{column:>8}' for column in columns)}  outcomes of the attack")
    async with connected(server, NORMAL_KEY) as session:
        await measure(session, slot)  # fills the caches
        for name in ATTACKS:
            before = await measure(session, slot)
            async with attacking(server, name) as outcomes:
                during = await measure(session, slot)
            alone, attacked = noticed_by([alone, before]), noticed_by([attacked, during])
            print(f"{during.row(name)}  {dict(outcomes)}", flush=True)
            await asyncio.sleep(SETTLE_SECONDS)
    print(alone.row("alone"))
    print(attacked.row("next to a hostile client"))
    slower = quantile(attacked.ttft, 0.99) / quantile(alone.ttft, 0.99)
    rate = quantile(attacked.rates, 0.5) / quantile(alone.rates, 0.5)
    print(f"TTFT p99 is {slower:.2f} times that alone (goal: at most 2), the rate {rate:.2f} times")


def noticed_by(parts: Sequence[Noticed]) -> Noticed:
    """Return all that was noticed in some parts of the time."""
    ttft = [each for part in parts for each in part.ttft]
    rates = [each for part in parts for each in part.rates]
    return Noticed(ttft, rates, sum((part.failures for part in parts), Counter[str]()))


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile, or NaN without values."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


async def measure(session: aiohttp.ClientSession, seconds: float) -> Noticed:
    """Run the normal streams; the last ones may end later."""
    noticed, end = noticed_by([]), time.perf_counter() + seconds

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        while time.perf_counter() < end:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await send_normal(session, chance, noticed)
            except (aiohttp.ClientError, TimeoutError) as error:
                noticed.failures[type(error).__name__] += 1
            await asyncio.sleep(chance.random() * 2 * PAUSE_SECONDS)

    await asyncio.gather(*map(work, range(NORMAL_STREAMS)))
    return noticed


async def send_normal(session: aiohttp.ClientSession, chance: random.Random, noticed: Noticed) -> None:
    """Stream a chat and record its times."""
    text = " ".join(chance.choices(WORDS, k=12))
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 24, "stream": True}
    started_at = time.perf_counter()
    async with session.post("/v1/chat/completions", json={**body, "ignore_eos": True}) as response:
        if response.status != 200:
            noticed.failures[str(response.status)] += 1
            return
        times = [time.perf_counter() async for line in response.content if b'"content":"' in line]
    if not times:
        noticed.failures["empty"] += 1
        return
    noticed.ttft.append(times[0] - started_at)
    if len(times) > 1:
        noticed.rates.append((24 - 1) / (times[-1] - times[0]))


@contextlib.asynccontextmanager
async def attacking(server: Server, name: str) -> AsyncIterator[Counter[str]]:
    """Start the attack in another process; the yielded counter has the outcomes at the end."""
    outcomes: Counter[str] = Counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, ATTACKER, server.url, name, "--api-key", HOSTILE_KEY, "--seconds", "3600"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await asyncio.sleep(1)
        yield outcomes
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
        outcomes.update(json.loads(output or "{}"))


@contextlib.asynccontextmanager
async def connected(server: Server, key: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client without connection limits; unread responses are closed."""
    unlimited = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=900)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(
        server.url, connector=unlimited, timeout=timeout, headers=headers
    ) as session:
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
    parser.add_argument("--hostile", action="store_true", help="measure normal clients next to a hostile one")
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="of --hostile: time alone, and time next to the attacks"
    )
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
