"""What a prompt's known beginning saves."""

from __future__ import annotations

from statistics import median

from msgspec import Struct

from fllm_api.bench.client import Client
from fllm_api.bench.figures import PROMPT_TOKENS, Figure
from fllm_api.bench.load import Load
from fllm_api.bench.prompts import Prompts
from fllm_api.bench.workload import Sample

NEW = Figure("ttft_new_p50_ms", "new prefix TTFT p50 ms")
SHARED = Figure("ttft_shared_p50_ms", "shared prefix TTFT p50 ms")
RATIO = Figure("shared_to_new", "shared / new")


class Prefix(Struct, frozen=True, kw_only=True, tag_field="name", tag="prefix"):
    """``requests`` pairs of prompts: ``prefix_words`` that both share, and ``words`` of their own."""

    requests: int
    prefix_words: int
    words: int

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """One at a time."""
        return (1,)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Both waits, and their ratio."""
        return (NEW, SHARED, RATIO, PROMPT_TOKENS)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:  # noqa: ARG002
        """The first of a pair is the request without a shared prefix, the second the one with it."""
        load = Load()
        new, shared = [], []
        for prefix in prompts.several(self.requests, self.prefix_words):
            first = await load.ask(client, f"{prefix} {prompts.words(self.words)}", 1)
            second = await load.ask(client, f"{prefix} {prompts.words(self.words)}", 1)
            if first and second:
                new.append(1000 * first.first_token)
                shared.append(1000 * second.first_token)
        if not new:
            return Sample({}, load)
        values = {
            NEW.name: median(new),
            SHARED.name: median(shared),
            RATIO.name: median(shared) / median(new),
            PROMPT_TOKENS.name: median(answer.prompt_tokens for answer in load.answers),
        }
        return Sample(values, load)
