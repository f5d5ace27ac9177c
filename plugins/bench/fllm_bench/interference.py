"""The interference workload: the latency of short requests during the prefill of a long prompt."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from fllm_bench.client import Client
from fllm_bench.metrics import Metric, percentiles_ms
from fllm_bench.prompts import Prompts
from fllm_bench.request_log import RequestLog
from fllm_bench.response_reader import Completion
from fllm_bench.workload import Sample

ALONE_P50 = Metric("ttft_alone_p50_ms", "alone TTFT p50 ms")
ALONE_P99 = Metric("ttft_alone_p99_ms", "alone TTFT p99 ms")
BUSY_P50 = Metric("ttft_beside_p50_ms", "busy TTFT p50 ms")
BUSY_P99 = Metric("ttft_beside_p99_ms", "busy TTFT p99 ms")
RATIO = Metric("beside_p99_to_alone_p50", "busy p99 / alone p50")
LONG = Metric("ttft_long_ms", "long prompt TTFT ms")

HEAD_START_SECONDS = 0.01
"""Delay between the long prompt and the first short one, so that the long prefill has started."""


class Interference(Struct, frozen=True, kw_only=True, tag_field="name", tag="interference"):
    """Short prompts in sequence: ``requests`` on an idle server, then others during a long prefill."""

    requests: int
    words: int
    long_words: int

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """One short request at a time."""
        return (1,)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Latencies without and with the long prompt, their ratio, and that of the long prompt."""
        return (ALONE_P50, ALONE_P99, BUSY_P50, BUSY_P99, RATIO, LONG)

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:  # noqa: ARG002
        """Send short requests until the long prompt's first token arrives."""
        log = RequestLog()
        alone = [await log.send(client, text, 1) for text in prompts.texts(self.requests, self.words)]
        long = asyncio.create_task(log.send(client, prompts.text(self.long_words), 1))
        await asyncio.sleep(HEAD_START_SECONDS)
        busy: list[Completion | None] = []
        while not long.done():
            busy.append(await log.send(client, prompts.text(self.words), 1))
        values = _first_token_times(alone, ALONE_P50, ALONE_P99)
        if completion := await long:
            values |= _first_token_times(busy, BUSY_P50, BUSY_P99)
            values[LONG.name] = 1000 * completion.first_token
        if ALONE_P50.name in values and BUSY_P99.name in values:
            values[RATIO.name] = values[BUSY_P99.name] / values[ALONE_P50.name]
        return Sample(values, log)


def _first_token_times(completions: list[Completion | None], p50: Metric, p99: Metric) -> dict[str, float]:
    return percentiles_ms((each.first_token for each in completions if each), p50, p99)
