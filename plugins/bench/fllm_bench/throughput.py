"""The throughput workload: output tokens per second and latencies at a constant concurrency."""

from __future__ import annotations

from msgspec import Struct

from fllm_bench.client import Client
from fllm_bench.metrics import LATENCIES, OUTPUT_RATE, Metric, latencies
from fllm_bench.prompts import Prompts
from fllm_bench.request_log import RequestLog
from fllm_bench.workload import Sample


class Throughput(Struct, frozen=True, kw_only=True, tag_field="name", tag="throughput"):
    """``requests`` prompts of ``words`` words, each completed with ``tokens`` tokens."""

    concurrencies: tuple[int, ...]
    requests: int
    words: int
    tokens: int

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The rate and all latencies."""
        return (OUTPUT_RATE, *LATENCIES)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:
        """Measure the rate from the first request to the end of the last response."""
        log = RequestLog()
        texts = prompts.texts(max(self.requests, concurrency), self.words)
        seconds = await log.send_all(client, texts, self.tokens, concurrency)
        values = latencies(log.completions)
        if log.completions:
            values[OUTPUT_RATE.name] = sum(each.output_tokens for each in log.completions) / seconds
        return Sample(values, log)
