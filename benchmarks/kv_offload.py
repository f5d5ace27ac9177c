"""Time to the first token of a prompt whose prefix is nowhere, on disk, in RAM, or in the KV cache.

Each round starts an engine with a directory that earlier rounds have filled, as after a restart::

    python benchmarks/kv_offload.py [MODEL] [--tokens 1000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Sequence

from fllm import Backend, BackendConfig, BackendContext, GenerateRequest, SamplingParams
from fllm.model import locate
from fllm_backends.torch.backend import torch_backend

PLACES = ("cold", "disk", "ram", "hot")
SUFFIX = 16
"""Tokens of a prompt after the shared prefix."""
RAM = 2 << 30

numbers = itertools.count()


def tokens(seed: int, count: int) -> list[int]:
    """Return ordinary token ids that depend on the seed only."""
    draw = random.Random(seed)
    return [draw.randrange(1000, 40000) for _ in range(count)]


async def first_token(backend: Backend, prompt: Sequence[int]) -> tuple[float, int]:
    """Return the seconds to the first token, and how many tokens of the prompt were cached."""
    request = GenerateRequest(str(next(numbers)), [*prompt], SamplingParams(max_tokens=1, temperature=0.0))
    began = time.perf_counter()
    [output] = [output async for output in backend.generate(request)]
    return time.perf_counter() - began, output.cached_tokens or 0


async def evict_all(backend: Backend, blocks: int, block_size: int, length: int) -> None:
    """Put other prompts into the KV cache, so that all blocks are replaced."""
    for _ in range(blocks * block_size // length + 1):
        await first_token(backend, tokens(next(numbers) + 10**6, length))


async def measure(model: str, count: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round by the place of the prefix."""
    times: dict[str, list[float]] = {place: [] for place in PLACES}
    prefix = tokens(0, count)

    def check(place: str, result: tuple[float, int]) -> None:
        seconds, cached = result
        expected = 0 if place == "cold" else count // 16 * 16
        if cached != expected:
            raise SystemExit(f"{place}: {cached} tokens were cached, not {expected}")
        times[place].append(seconds)

    with tempfile.TemporaryDirectory() as directory:
        config = BackendConfig(
            model=model,
            kv_cache_dir=directory,
            kv_offload_memory=RAM,
            max_num_seqs=2,
            max_model_len=2 * count,
        )
        for number in range(rounds + 1):
            backend = torch_backend(config, BackendContext())
            card = await backend.start()
            for _ in range(2):  # the first requests of a process compile, and touch memory
                await first_token(backend, tokens(-1 - next(numbers), count))
            if number == 0:
                await first_token(backend, [*prefix, *tokens(1, SUFFIX)])
            else:
                check("disk", await first_token(backend, [*prefix, *tokens(2 * number, SUFFIX)]))
                check("hot", await first_token(backend, [*prefix, *tokens(2 * number + 1, SUFFIX)]))
                await evict_all(
                    backend, card.runtime["kv_cache_blocks"], card.runtime["block_size"], 2 * count - 9
                )
                check("ram", await first_token(backend, [*prefix, *tokens(3 * number + 999, SUFFIX)]))
                check("cold", await first_token(backend, tokens(number + 5000, count + SUFFIX)))
            await backend.stop()
    return times


def main() -> None:
    """Print the medians, and their ratios to a prefix that is computed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = locate(arguments.model).location
    times = asyncio.run(measure(model, arguments.tokens, arguments.rounds))
    cold = statistics.median(times["cold"])
    print(
        f"prefix of {arguments.tokens} tokens, {arguments.rounds} rounds: median (range) of the first token"
    )
    for place in PLACES:
        seconds = times[place]
        middle = statistics.median(seconds)
        print(
            f"{place:>5} {1000 * middle:8.0f} ms ({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f}), "
            f"{middle / cold:.2f} x cold"
        )


if __name__ == "__main__":
    main()
