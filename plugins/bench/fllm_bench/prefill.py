"""The prefill workload: prompt tokens per second."""

from __future__ import annotations

from msgspec import Struct

from fllm_bench.client import Client
from fllm_bench.metrics import PROMPT_RATE, PROMPT_TOKENS, TTFT_P50, TTFT_P99, Metric, percentiles_ms
from fllm_bench.prompts import Prompts
from fllm_bench.request_log import RequestLog
from fllm_bench.workload import Sample


class Prefill(Struct, frozen=True, kw_only=True, tag_field="name", tag="prefill"):
    """``requests`` uncached prompts of ``words`` words, each completed with one token."""

    concurrencies: tuple[int, ...]
    requests: int
    words: int

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The rate, the latency, and the length of the prompts in the server's own tokens."""
        return (PROMPT_RATE, TTFT_P50, TTFT_P99, PROMPT_TOKENS)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:
        """Measure the rate with the server's token counts; without ``usage`` the rate is missing."""
        log = RequestLog()
        texts = prompts.texts(max(self.requests, concurrency), self.words)
        seconds = await log.send_all(client, texts, 1, concurrency)
        values = percentiles_ms((each.first_token for each in log.completions), TTFT_P50, TTFT_P99)
        if tokens := sum(each.prompt_tokens for each in log.completions):
            values |= {PROMPT_RATE.name: tokens / seconds, PROMPT_TOKENS.name: tokens / len(log.completions)}
        return Sample(values, log)
