"""What short requests suffer while a long prompt is being prefilled."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from fllm_api.bench.answer import Answer
from fllm_api.bench.client import Client
from fllm_api.bench.figures import Figure, quantiles
from fllm_api.bench.load import Load
from fllm_api.bench.prompts import Prompts
from fllm_api.bench.workload import Sample

ALONE_P50 = Figure("ttft_alone_p50_ms", "alone TTFT p50 ms")
ALONE_P99 = Figure("ttft_alone_p99_ms", "alone TTFT p99 ms")
BESIDE_P50 = Figure("ttft_beside_p50_ms", "beside TTFT p50 ms")
BESIDE_P99 = Figure("ttft_beside_p99_ms", "beside TTFT p99 ms")
RATIO = Figure("beside_p99_to_alone_p50", "beside p99 / alone p50")
LONG = Figure("ttft_long_ms", "long prompt TTFT ms")

HEAD_START = 0.01
"""Seconds between the long prompt and the first short one, so that its prefill has begun."""


class Interference(Struct, frozen=True, kw_only=True, tag_field="name", tag="interference"):
    """Short prompts, one after another: ``requests`` alone, then as long as a long one is prefilled."""

    requests: int
    words: int
    long_words: int

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """One short request at a time."""
        return (1,)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Without and with the long prompt."""
        return (ALONE_P50, ALONE_P99, BESIDE_P50, BESIDE_P99, RATIO, LONG)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:  # noqa: ARG002
        """A short request counts as beside the long one if it was sent before that one's first token."""
        load = Load()
        alone = [await load.ask(client, text, 1) for text in prompts.several(self.requests, self.words)]
        long = asyncio.create_task(load.ask(client, prompts.words(self.long_words), 1))
        await asyncio.sleep(HEAD_START)
        beside: list[Answer | None] = []
        while not long.done():
            beside.append(await load.ask(client, prompts.words(self.words), 1))
        values = _first_tokens(alone, ALONE_P50, ALONE_P99)
        if answer := await long:
            values |= _first_tokens(beside, BESIDE_P50, BESIDE_P99)
            values[LONG.name] = 1000 * answer.first_token
        if ALONE_P50.name in values and BESIDE_P99.name in values:
            values[RATIO.name] = values[BESIDE_P99.name] / values[ALONE_P50.name]
        return Sample(values, load)


def _first_tokens(answers: list[Answer | None], p50: Figure, p99: Figure) -> dict[str, float]:
    return quantiles((answer.first_token for answer in answers if answer), p50, p99)
