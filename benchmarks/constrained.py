"""Measure what constraints cost: output tokens/s of constrained streams over those of unconstrained ones.

::

    furiosa-llm serve --served-model-name m --port 8000
    python benchmarks/constrained.py http://localhost:8000 --model m

Rounds of both kinds alternate on one server. Every stream has the same prompt length and the same number of
tokens: the constraint, lines of JSON objects, allows an end at many places and requires none, and EOS tokens
are ignored. The first round of each kind is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from typing import Any

import httpx

LINES = '(\\{"name": "[A-Za-z ]{1,40}", "age": [0-9]{1,3}, "tags": \\["[a-z]+"(, "[a-z]+")*\\]\\}\\n)+'


async def main() -> None:
    """Measure and print a line for each kind."""
    options = parse_arguments()
    numbers = itertools.count()
    speeds: dict[str, list[float]] = {"unconstrained": [], "constrained": []}
    async with httpx.AsyncClient(base_url=options.url, timeout=600) as client:
        for _ in range(options.rounds + 1):
            for kind, rates in speeds.items():
                extra = {"guided_regex": LINES} if kind == "constrained" else {}
                rates.append(await measure_round(client, options, numbers, extra))
    measured = {kind: rates[1:] for kind, rates in speeds.items()}
    pairs = zip(*measured.values(), strict=True)
    measured["ratio"] = [constrained / free for free, constrained in pairs]
    if options.json:
        print(json.dumps(measured))
        return
    for kind, values in measured.items():
        print(row(kind, values, 2) if kind == "ratio" else f"{row(kind, values, 1)} tokens/s")


def row(name: str, values: list[float], digits: int) -> str:
    """Format the median, the minimum and the maximum."""
    median, minimum, maximum = (
        f"{each:.{digits}f}" for each in (statistics.median(values), min(values), max(values))
    )
    return f"{name:14} {median:>8} ({minimum} to {maximum})"


async def measure_round(
    client: httpx.AsyncClient,
    options: argparse.Namespace,
    numbers: itertools.count[int],
    extra: dict[str, Any],
) -> float:
    """Return the output tokens/s of one round."""
    started_at = time.perf_counter()
    counts = await asyncio.gather(
        *(stream(client, options, next(numbers), extra) for _ in range(options.streams))
    )
    assert set(counts) == {options.tokens}, counts
    return sum(counts) / (time.perf_counter() - started_at)


async def stream(
    client: httpx.AsyncClient, options: argparse.Namespace, number: int, extra: dict[str, Any]
) -> int:
    """Return the number of output tokens of one request, as the server's usage reports it."""
    body = {
        "model": options.model,
        "prompt": f"{number:06}. Here is a list of people as JSON, one on each line.\n",
        "max_tokens": options.tokens,
        "temperature": options.temperature,
        "ignore_eos": True,
        **extra,
    }
    response = await client.post("/v1/completions", json=body)
    response.raise_for_status()
    count: int = response.json()["usage"]["completion_tokens"]
    return count


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--json", action="store_true", help="print the values of each round as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
