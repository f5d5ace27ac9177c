"""The latency workload: what one user experiences on an otherwise idle server."""

from __future__ import annotations

from msgspec import Struct

from fllm_bench.client import Client
from fllm_bench.metrics import E2E_P50, E2E_P99, LATENCIES, Metric, latencies
from fllm_bench.prompts import Prompts
from fllm_bench.request_log import RequestLog
from fllm_bench.workload import Sample


class Latency(Struct, frozen=True, kw_only=True, tag_field="name", tag="latency"):
    """One request after another: ``words`` words in, ``tokens`` tokens out, streamed or not."""

    requests: int
    words: int
    tokens: int
    stream: bool

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """One request at a time."""
        return (1,)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All latencies if streamed, else only those of whole responses."""
        return LATENCIES if self.stream else (E2E_P50, E2E_P99)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:  # noqa: ARG002
        """Wait for each response before sending the next request."""
        log = RequestLog()
        for text in prompts.texts(self.requests, self.words):
            await log.send(client, text, self.tokens, stream=self.stream)
        measured = latencies(log.completions)
        names = {metric.name for metric in self.metrics}
        return Sample({name: value for name, value in measured.items() if name in names}, log)
