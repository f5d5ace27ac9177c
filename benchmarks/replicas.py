"""Measure replicas: how often chats find their history in the cache, and what the loss of an engine costs.

::

    python benchmarks/replicas.py                       # both parts, with the embedded model
    python benchmarks/replicas.py --parts routing --chats 16 --turns 6

``routing`` sends the same chats of several turns, all at once, to one engine, to ``--replicas`` behind one
server, and to as many separate servers in turn (round-robin). It prints the share of prompt tokens that were
found in the cache.

``failure`` kills an engine with SIGKILL under streams. It prints how long they stood still and when the
engine was back, and compares all texts with those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp

from fllm.testing import Server, serving

TOPICS = ("rivers", "trains", "bread", "glass", "chess", "clouds", "ships", "wool", "salt", "bees")
PAUSE = 0.3
"""Longest pause of a user between two turns, in seconds."""
OPTIONS = ("--enable-metrics", "--max-model-len", "4096", "--log-level", "warning")


class Client:
    """Sends chat requests to servers in turn."""

    def __init__(self, session: aiohttp.ClientSession, servers: list[Server]) -> None:
        self._session = session
        self._urls = itertools.cycle([f"{server.api}/chat/completions" for server in servers])

    async def chat(self, messages: list[dict[str, str]], max_tokens: int) -> dict[str, Any]:
        """Return a whole response."""
        body = {"model": "m", "messages": messages, "max_tokens": max_tokens, "temperature": 0}
        async with self._session.post(next(self._urls), json=body) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer

    async def stream(self, number: int, max_tokens: int, times: list[float]) -> str:
        """Return the text of a stream, and append the times at which its parts arrived."""
        content = f"Write a long story about {TOPICS[number % len(TOPICS)]} and number {number}."
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": 0.7,
            "seed": number,
            "stream": True,
        }
        text = ""
        async with self._session.post(next(self._urls), json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    times.append(time.monotonic())
                    chunk = json.loads(line.removeprefix(b"data: "))
                    if "error" in chunk:
                        raise RuntimeError(chunk["error"]["message"])
                    text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        return text


def opening(number: int) -> str:
    """Return the first message of a chat, which differs from that of others from its first words on."""
    topic = TOPICS[number % len(TOPICS)]
    return f"Chat {number} is about {topic}. " + f"Explain what is special about {topic}, please. " * 6


async def hit_rate(servers: list[Server], chats: int, turns: int) -> tuple[float, float]:
    """Return the share of the prompt tokens that were cached, and the seconds that all chats took."""
    totals = {"prompt": 0, "cached": 0}

    async def talk(client: Client, number: int) -> None:
        messages = [{"role": "user", "content": opening(number)}]
        for turn in range(turns):
            await asyncio.sleep(PAUSE * ((7 * number + 3 * turn) % 10) / 10)
            answer = await client.chat(messages, 24)
            usage = answer["usage"]
            totals["prompt"] += usage["prompt_tokens"]
            totals["cached"] += (usage["prompt_tokens_details"] or {}).get("cached_tokens", 0)
            messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
            messages.append({"role": "user", "content": f"And what about part {turn}? " * 8})

    started = time.monotonic()
    async with session() as opened:
        client = Client(opened, servers)
        await asyncio.gather(*(talk(client, number) for number in range(chats)))
    return totals["cached"] / totals["prompt"], time.monotonic() - started


def measure_routing(args: argparse.Namespace) -> Iterator[str]:
    """Yield a line for each way to serve the same chats."""
    count = args.replicas
    ways: dict[str, tuple[int, tuple[str, ...]]] = {
        "one engine": (1, ()),
        f"{count} replicas": (1, ("--replicas", str(count))),
        f"{count} servers, round-robin": (count, ()),
    }
    yield f"{args.chats} chats at once, {args.turns} turns each"
    base = None
    for name, (servers, options) in ways.items():
        with ExitStack() as stack:
            running = [stack.enter_context(serving(*OPTIONS, *options)) for _ in range(servers)]
            rate, seconds = asyncio.run(hit_rate(running, args.chats, args.turns))
        base = base or rate
        yield f"  {name:28} {rate:6.1%} of prompt tokens cached, {rate / base:5.2f} x; {seconds:5.1f} s"


async def streams(server: Server, count: int, max_tokens: int, times: list[list[float]]) -> list[str]:
    """Return the texts of simultaneous streams; put the times of their parts into ``times``."""
    times += [[] for _ in range(count)]
    async with session() as opened:
        client = Client(opened, [server])
        return await asyncio.gather(*(client.stream(n, max_tokens, times[n]) for n in range(count)))


async def streams_with_kill(
    server: Server, args: argparse.Namespace
) -> tuple[list[str], list[list[float]], float, float]:
    """Kill an engine after a third of the tokens.

    Return what `streams` does, when it was killed, and the seconds until it was back.
    """
    times: list[list[float]] = []
    running = asyncio.create_task(streams(server, args.streams, args.tokens, times))
    while sum(map(len, times)) < args.streams * args.tokens / 3:  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    os.kill(engines(server)[0], signal.SIGKILL)
    killed_at = time.monotonic()
    await asyncio.sleep(0.1)  # until the server has noticed
    back = 0.1 + await seconds_until_ready(server, args.replicas)
    return await running, times, killed_at, back


async def seconds_until_ready(server: Server, count: int) -> float:
    """Return how long it takes until all replicas are ready."""
    started = time.monotonic()
    async with session() as opened:
        while True:
            async with opened.get(f"{server.url}/metrics") as response:
                page = await response.text()
            lines = [line for line in page.splitlines() if line.startswith("furiosa_llm:replica_ready")]
            if sum(line.endswith(" 1.0") for line in lines) == count:
                return time.monotonic() - started
            await asyncio.sleep(0.05)


def measure_failure(args: argparse.Namespace) -> Iterator[str]:
    """Yield what a kill under load costs."""
    with serving(*OPTIONS, "--replicas", str(args.replicas)) as server:
        calm_times: list[list[float]] = []
        calm = asyncio.run(streams(server, args.streams, args.tokens, calm_times))
        gap = max(max(_gaps(each)) for each in calm_times)
        yield f"{args.streams} streams of {args.tokens} tokens over {args.replicas} replicas"
        yield f"  undisturbed: longest gap between two parts of a stream {gap:.2f} s"
        for _ in range(args.kills):
            texts, times, killed_at, back = asyncio.run(streams_with_kill(server, args))
            gaps = [next((at for at in each if at > killed_at), killed_at) - killed_at for each in times]
            equal = sum(now == before for now, before in zip(texts, calm, strict=True))
            yield (
                f"  kill -9: {equal} of {len(texts)} texts equal; next part of a stream after "
                f"{statistics.median(gaps):.2f} s (median), {max(gaps):.2f} s (longest); "
                f"engine ready after {back:.1f} s"
            )


def engines(server: Server) -> list[int]:
    """Return the process ids of the engines of a server."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if "engine" in Path(f"/proc/{child}/cmdline").read_text()]


def session() -> aiohttp.ClientSession:
    """Return a session without limits."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600))


def _gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)] or [0.0]


def main() -> None:
    """Measure the chosen parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="routing,failure")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--chats", type=int, default=12)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--kills", type=int, default=2)
    args = parser.parse_args()
    for part in args.parts.split(","):
        for line in {"routing": measure_routing, "failure": measure_failure}[part](args):
            print(line, flush=True)


if __name__ == "__main__":
    main()
