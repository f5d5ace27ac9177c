"""The same load on several OpenAI-compatible servers in turn; medians, and ratios to the best of the others.

::

    python benchmarks/throughput.py ours=http://localhost:8000/v1 llama.cpp=http://localhost:8081/v1

Every request asks for exactly ``--tokens`` tokens (``ignore_eos``) after a prompt of ``--words`` words that
no other request has. In each round every server is measured once, so that a noisy machine is unfair to all
alike. All of the servers should run from the start, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import httpx

WORDS = "apple river stone cloud garden window letter market bridge forest summer winter music paper".split()  # noqa: SIM905


@dataclass(frozen=True)
class Run:
    """One round of one server at one number of streams."""

    tokens_per_second: float
    first_token: float
    """Median seconds."""


async def one(client: httpx.AsyncClient, base: str, prompt: str, tokens: int) -> tuple[int, float]:
    """One request: tokens, and seconds to the first."""
    body = {"model": "m", "prompt": prompt, "max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True}
    options = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    began, first, count, usage = time.perf_counter(), 0.0, 0, None
    async with client.stream("POST", f"{base}/completions", json=body | options) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk: dict[str, Any] = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            if any(choice.get("text") for choice in chunk.get("choices", ())):
                first = first or time.perf_counter() - began
                count += 1
    return (usage or {}).get("completion_tokens", count), first


async def load(base: str, streams: int, arguments: argparse.Namespace, seed: int) -> Run:
    """All requests of one round."""
    chance = random.Random(seed)
    prompts = [" ".join(chance.choices(WORDS, k=arguments.words)) for _ in range(arguments.requests)]
    gate = asyncio.Semaphore(streams)

    # Some servers close an idle connection just when it is taken up again: each request has its own.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:

        async def limited(prompt: str) -> tuple[int, float]:
            async with gate:
                return await one(client, base, prompt, arguments.tokens)

        began = time.perf_counter()
        done = await asyncio.gather(*map(limited, prompts))
        seconds = time.perf_counter() - began
    return Run(sum(count for count, _ in done) / seconds, statistics.median(first for _, first in done))


def table(runs: dict[tuple[str, int], list[Run]], names: list[str], streams: list[int]) -> str:
    """Markdown: medians over the rounds, and the first server's rate over the best other's."""
    rows = ["| streams | " + " | ".join(f"{n}: tok/s, TTFT ms" for n in names) + " | ratio |"]
    rows.append("|---" * (len(names) + 2) + "|")
    for count in streams:
        rates = [statistics.median(run.tokens_per_second for run in runs[name, count]) for name in names]
        firsts = [statistics.median(run.first_token for run in runs[name, count]) for name in names]
        cells = [f"{rate:.0f}, {1000 * first:.0f}" for rate, first in zip(rates, firsts, strict=True)]
        ratio = f"{rates[0] / max(rates[1:]):.2f}" if len(rates) > 1 else ""
        rows.append(f"| {count} | " + " | ".join(cells) + f" | {ratio} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("servers", nargs="+", metavar="NAME=URL", help="the first is compared to the others")
    parser.add_argument("--streams", default="1,4,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16, help="in each round")
    parser.add_argument("--words", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    servers = dict(server.split("=", 1) for server in arguments.servers)
    streams = [int(count) for count in arguments.streams.split(",")]
    runs: dict[tuple[str, int], list[Run]] = {}
    for turn in range(arguments.rounds):
        for count in streams:
            for name, base in servers.items():
                run = asyncio.run(load(base, count, arguments, seed=1000 * turn + count))
                runs.setdefault((name, count), []).append(run)
                print(
                    f"round {turn + 1}, {count} streams, {name}: {run.tokens_per_second:.1f} tok/s",
                    flush=True,
                )
    print(table(runs, list(servers), streams))


if __name__ == "__main__":
    main()
