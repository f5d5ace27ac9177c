"""The prefix workload: what a cached prompt prefix saves."""

from __future__ import annotations

from statistics import median

from msgspec import Struct

from fllm_bench.client import Client
from fllm_bench.metrics import PROMPT_TOKENS, Metric
from fllm_bench.prompts import Prompts
from fllm_bench.request_log import RequestLog
from fllm_bench.workload import Sample

NEW = Metric("ttft_new_p50_ms", "new prefix TTFT p50 ms")
SHARED = Metric("ttft_shared_p50_ms", "shared prefix TTFT p50 ms")
RATIO = Metric("shared_to_new", "shared / new")


class Prefix(Struct, frozen=True, kw_only=True, tag_field="name", tag="prefix"):
    """``requests`` pairs of prompts with ``prefix_words`` shared words, then ``words`` words of their own."""

    requests: int
    prefix_words: int
    words: int

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """One request at a time."""
        return (1,)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Both latencies, their ratio, and the length of the prompts."""
        return (NEW, SHARED, RATIO, PROMPT_TOKENS)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:  # noqa: ARG002
        """Compare the first request of each pair, whose prefix is new, with the second, which shares it."""
        log = RequestLog()
        new, shared = [], []
        for prefix in prompts.texts(self.requests, self.prefix_words):
            first = await log.send(client, f"{prefix} {prompts.text(self.words)}", 1)
            second = await log.send(client, f"{prefix} {prompts.text(self.words)}", 1)
            if first and second:
                new.append(1000 * first.first_token)
                shared.append(1000 * second.first_token)
        if not new:
            return Sample({}, log)
        values = {
            NEW.name: median(new),
            SHARED.name: median(shared),
            RATIO.name: median(shared) / median(new),
            PROMPT_TOKENS.name: median(each.prompt_tokens for each in log.completions),
        }
        return Sample(values, log)
