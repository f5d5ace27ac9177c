"""Measure what a client with slow grammars costs another one.

::

    furiosa-llm serve --served-model-name m --port 8000 --api-key one --api-key two
    python benchmarks/slow_grammars.py http://localhost:8000 --model m --api-key one --hostile-api-key two

An unconstrained stream of the first key runs alone, and then next to 1, 8 and 32 requests of the second one.
The masks of their ambiguous grammar take longer with each token. A request that ends is sent again.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import Counter

import httpx
from attacks import AMBIGUOUS


async def main() -> None:
    """Measure and print a line for each number of hostile requests."""
    options = parse_arguments()
    async with client(options.url, options.api_key) as normal:
        await stream(normal, options.model, options.tokens)
        print(f"{'hostile':>8} {'tokens/s':>9} {'alone':>9} {'share':>6}  outcomes of the hostile requests")
        for number in options.hostile:
            alone, _ = await measure(normal, options, 0)
            rate, outcomes = await measure(normal, options, number)
            print(f"{number:8} {rate:9.1f} {alone:9.1f} {rate / alone:6.2f}  {dict(outcomes)}")


def client(url: str, key: str | None) -> httpx.AsyncClient:
    """Return a client with a key."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(
        base_url=url, headers=headers, timeout=600, limits=httpx.Limits(max_connections=None)
    )


async def measure(
    normal: httpx.AsyncClient, options: argparse.Namespace, number: int
) -> tuple[float, Counter[str]]:
    """Return the rate of the normal stream next to ``number`` hostile requests, and their outcomes."""
    outcomes: Counter[str] = Counter()
    async with client(options.url, options.hostile_api_key) as hostile:
        tasks = [asyncio.create_task(attack(hostile, options.model, outcomes)) for _ in range(number)]
        await asyncio.sleep(options.delay)
        rates = [await stream(normal, options.model, options.tokens) for _ in range(options.rounds)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return statistics.median(rates), outcomes


async def attack(client: httpx.AsyncClient, model: str, outcomes: Counter[str]) -> None:
    """Send a request with a slow grammar again and again."""
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": 1000, "guided_grammar": AMBIGUOUS}
    while True:
        response = await client.post("/v1/completions", json=body)
        outcomes[str(response.status_code)] += 1


async def stream(client: httpx.AsyncClient, model: str, tokens: int) -> float:
    """Return the output tokens/s of one stream."""
    body = {
        "model": model,
        "prompt": "Once upon a time",
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    started_at = time.perf_counter()
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for _ in response.aiter_lines():
            pass
    return tokens / (time.perf_counter() - started_at)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--model", required=True)
    parser.add_argument("--api-key")
    parser.add_argument("--hostile-api-key")
    parser.add_argument("--hostile", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--delay", type=float, default=1.0)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
