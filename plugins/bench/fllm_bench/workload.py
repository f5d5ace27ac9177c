"""The interface of a workload, and of one measurement with it."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from fllm_bench.client import Client
from fllm_bench.metrics import Metric
from fllm_bench.prompts import Prompts
from fllm_bench.request_log import RequestLog


class Sample(Struct, frozen=True):
    """One measurement of one target."""

    values: dict[str, float]
    """Values by metric name; a metric that could not be measured is missing."""
    log: RequestLog


class Workload(Protocol):
    """Requests that every target receives in the same way; a frozen Struct of the options that shape them."""

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """Numbers of concurrent requests; each is measured separately."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics that this workload measures."""
        ...

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:
        """Send the requests of one measurement."""
        ...
