"""How long one user waits on an idle server."""

from __future__ import annotations

from msgspec import Struct

from fllm_api.bench.client import Client
from fllm_api.bench.figures import END_P50, END_P99, LATENCIES, Figure, latencies
from fllm_api.bench.load import Load
from fllm_api.bench.prompts import Prompts
from fllm_api.bench.workload import Sample


class Latency(Struct, frozen=True, kw_only=True, tag_field="name", tag="latency"):
    """One request after another: ``words`` words in, ``tokens`` tokens out, streamed or in one piece."""

    requests: int
    words: int
    tokens: int
    stream: bool

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """One at a time."""
        return (1,)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """An answer in one piece has no first token."""
        return LATENCIES if self.stream else (END_P50, END_P99)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:  # noqa: ARG002
        """Wait for each answer before the next request."""
        load = Load()
        for text in prompts.several(self.requests, self.words):
            await load.ask(client, text, self.tokens, stream=self.stream)
        measured = latencies(load.answers)
        names = {figure.name for figure in self.figures}
        return Sample({name: value for name, value in measured.items() if name in names}, load)
