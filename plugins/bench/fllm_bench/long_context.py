"""The long-context workload: the time to the first token of a long prompt, and of each token after it."""

from __future__ import annotations

from msgspec import Struct

from fllm_bench.client import Client
from fllm_bench.metrics import (
    PROMPT_RATE,
    PROMPT_TOKENS,
    TPOT_P50,
    TPOT_P99,
    TTFT_P50,
    TTFT_P99,
    Metric,
    percentiles_ms,
)
from fllm_bench.prompts import Prompts
from fllm_bench.request_log import RequestLog
from fllm_bench.sizing import measure_size
from fllm_bench.workload import Sample


class LongContext(Struct, frozen=True, kw_only=True, tag_field="name", tag="long-context"):
    """``requests`` uncached prompts of ``context`` tokens, each completed with ``tokens`` tokens."""

    concurrencies: tuple[int, ...]
    requests: int
    context: int
    tokens: int

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Prefill, decode at that context, and the length of the prompts in the server's own tokens."""
        return (PROMPT_RATE, TTFT_P50, TTFT_P99, TPOT_P50, TPOT_P99, PROMPT_TOKENS)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:
        """Send prompts of the right length, after two short ones that tell how the server counts tokens."""
        probes, log = RequestLog(), RequestLog()
        size = await measure_size(client, probes, prompts.text)
        if size is None:
            return Sample({}, RequestLog(failures=probes.failures))
        words = max(1, size.words(self.context))
        texts = prompts.texts(max(self.requests, concurrency), words)
        await log.send_all(client, texts, self.tokens, concurrency)
        values = percentiles_ms((each.first_token for each in log.completions), TTFT_P50, TTFT_P99)
        values |= percentiles_ms((each.per_token for each in log.completions), TPOT_P50, TPOT_P99)
        if tokens := sum(each.prompt_tokens for each in log.completions):
            prefill = sum(each.first_token for each in log.completions)
            values |= {PROMPT_RATE.name: tokens / prefill, PROMPT_TOKENS.name: tokens / len(log.completions)}
        return Sample(values, log)
