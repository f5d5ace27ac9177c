"""Output tokens per second, and latencies, while so many requests are always under way."""

from __future__ import annotations

from msgspec import Struct

from fllm_api.bench.client import Client
from fllm_api.bench.figures import LATENCIES, OUTPUT_RATE, Figure, latencies
from fllm_api.bench.load import Load
from fllm_api.bench.prompts import Prompts
from fllm_api.bench.workload import Sample


class Throughput(Struct, frozen=True, kw_only=True, tag_field="name", tag="throughput"):
    """``requests`` prompts of ``words`` words, answered with ``tokens`` tokens each."""

    concurrencies: tuple[int, ...]
    requests: int
    words: int
    tokens: int

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The rate, then what a user waits for."""
        return (OUTPUT_RATE, *LATENCIES)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:
        """The rate is that of the whole load, from the first request to the last answer's end."""
        load = Load()
        texts = prompts.several(max(self.requests, concurrency), self.words)
        seconds = await load.ask_all(client, texts, self.tokens, concurrency)
        values = latencies(load.answers)
        if load.answers:
            values[OUTPUT_RATE.name] = sum(answer.output_tokens for answer in load.answers) / seconds
        return Sample(values, load)
