"""What constraining costs: output tokens/s of constrained streams, over those of unconstrained ones.

::

    furiosa-llm serve --served-model-name m --port 8000
    python benchmarks/constrained.py http://localhost:8000 --model m

Rounds of both kinds alternate on one server, and every stream has the same prompt length and the same number
of tokens: the constraint, lines of JSON objects, allows an end at many places and demands none, and the ends
of sequences are ignored. The first round of each kind is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from typing import Any

import httpx

LINES = '(\\{"name": "[A-Za-z ]{1,40}", "age": [0-9]{1,3}, "tags": \\["[a-z]+"(, "[a-z]+")*\\]\\}\\n)+'


async def main() -> None:
    """Measure, and print a line for each kind."""
    asked = arguments()
    numbers = itertools.count()
    speeds: dict[str, list[float]] = {"unconstrained": [], "constrained": []}
    async with httpx.AsyncClient(base_url=asked.url, timeout=600) as client:
        for _ in range(asked.rounds + 1):
            for kind, found in speeds.items():
                extra = {"guided_regex": LINES} if kind == "constrained" else {}
                found.append(await measured(client, asked, numbers, extra))
    for kind, found in speeds.items():
        print(row(kind, found[1:], 1), "tokens/s")
    pairs = zip(*(found[1:] for found in speeds.values()), strict=True)
    print(row("ratio", [constrained / free for free, constrained in pairs], 2))


def row(name: str, values: list[float], digits: int) -> str:
    """The median, and from where to where."""
    middle, least, most = (
        f"{each:.{digits}f}" for each in (statistics.median(values), min(values), max(values))
    )
    return f"{name:14} {middle:>8} ({least} to {most})"


async def measured(
    client: httpx.AsyncClient, asked: argparse.Namespace, numbers: itertools.count[int], extra: dict[str, Any]
) -> float:
    """Output tokens/s of one round."""
    began = time.perf_counter()
    counts = await asyncio.gather(
        *(stream(client, asked, next(numbers), extra) for _ in range(asked.streams))
    )
    assert set(counts) == {asked.tokens}, counts
    return sum(counts) / (time.perf_counter() - began)


async def stream(
    client: httpx.AsyncClient, asked: argparse.Namespace, number: int, extra: dict[str, Any]
) -> int:
    """The tokens of one answer, by the usage that the server counts."""
    body = {
        "model": asked.model,
        "prompt": f"{number:06}. Here is a list of people as JSON, one on each line.\n",
        "max_tokens": asked.tokens,
        "temperature": asked.temperature,
        "ignore_eos": True,
        **extra,
    }
    answer = await client.post("/v1/completions", json=body)
    answer.raise_for_status()
    count: int = answer.json()["usage"]["completion_tokens"]
    return count


def arguments() -> argparse.Namespace:
    """What to ask whom."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.0)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
