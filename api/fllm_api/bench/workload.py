"""What a workload is."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from fllm_api.bench.client import Client
from fllm_api.bench.figures import Figure
from fllm_api.bench.load import Load
from fllm_api.bench.prompts import Prompts


class Sample(Struct, frozen=True):
    """One measurement of one server."""

    values: dict[str, float]
    """By names of figures; those that could not be measured are missing."""
    load: Load


class Workload(Protocol):
    """Requests that are sent to each server in the same way; a frozen Struct of the options that shape it."""

    @property
    def concurrencies(self) -> tuple[int, ...]:
        """How many requests are under way at once; each is measured for itself."""
        ...

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is measured."""
        ...

    async def measure(self, client: Client, concurrency: int, prompts: Prompts) -> Sample:
        """Send one measurement's requests."""
        ...
