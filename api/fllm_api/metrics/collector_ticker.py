"""Calls `Collector.on_interval` about once per second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from litestar import Litestar

from fllm.interfaces import Collector
from fllm_api.lifecycle.backend_status import HasStatus, stats_or_none
from fllm_api.metrics.isolated_collector import IsolatedCollector

INTERVAL_SECONDS = 1.0


def collector_ticker(
    backend: HasStatus, collectors: Sequence[IsolatedCollector]
) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """Return an application lifespan that calls the collectors that override `Collector.on_interval`."""
    called = [collector for collector in collectors if collector.overrides_on_interval]

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:  # noqa: ARG001 (Litestar passes it)
        task = asyncio.create_task(_tick(backend, called)) if called else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    return lifespan


async def _tick(backend: HasStatus, collectors: Sequence[Collector]) -> None:
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        stats = await stats_or_none(backend)
        for collector in collectors:
            collector.on_interval(stats)
