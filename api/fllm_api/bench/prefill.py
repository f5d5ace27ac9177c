"""Prompt tokens per second."""

from __future__ import annotations

from msgspec import Struct

from fllm_api.bench.client import Client
from fllm_api.bench.figures import PROMPT_RATE, PROMPT_TOKENS, TTFT_P50, TTFT_P99, Figure, quantiles
from fllm_api.bench.load import Load
from fllm_api.bench.prompts import Prompts
from fllm_api.bench.workload import Sample


class Prefill(Struct, frozen=True, kw_only=True, tag_field="name", tag="prefill"):
    """``requests`` prompts of ``words`` words that no cache knows, answered with one token each."""

    concurrencies: tuple[int, ...]
    requests: int
    words: int

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The rate, the wait, and how long the prompts were in the server's own tokens."""
        return (PROMPT_RATE, TTFT_P50, TTFT_P99, PROMPT_TOKENS)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:
        """Tokens are counted by the server, in ``usage``; without that there is no rate."""
        load = Load()
        texts = prompts.several(max(self.requests, concurrency), self.words)
        seconds = await load.ask_all(client, texts, 1, concurrency)
        values = quantiles((answer.first_token for answer in load.answers), TTFT_P50, TTFT_P99)
        if tokens := sum(answer.prompt_tokens for answer in load.answers):
            values |= {PROMPT_RATE.name: tokens / seconds, PROMPT_TOKENS.name: tokens / len(load.answers)}
        return Sample(values, load)
