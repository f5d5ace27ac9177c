"""Calls `Collector.on_interval` about once per second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from litestar import Litestar

from fllm.interfaces import Backend, Collector
from fllm.values import EngineStats
from fllm_api.app_state import AppState
from fllm_api.metrics.isolated_collector import IsolatedCollector

INTERVAL_SECONDS = 1.0


def collector_ticker(server: AppState) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """Return an application lifespan that calls the collectors that override `Collector.on_interval`."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:  # noqa: ARG001 (Litestar passes it)
        collectors = [IsolatedCollector(each) for each in server.collectors if _overrides_on_interval(each)]
        task = asyncio.create_task(_tick(server.backend, collectors)) if collectors else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    return lifespan


def _overrides_on_interval(collector: Collector) -> bool:
    return type(collector).on_interval is not Collector.on_interval


async def status_of(backend: Backend) -> EngineStats | None:
    """The backend's status, if it answers."""
    try:
        return await backend.status()
    except Exception:  # noqa: BLE001  a stranger's code; whatever it raises, it is not well
        return None


async def _tick(backend: Backend, collectors: Sequence[Collector]) -> None:
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        stats = await status_of(backend)
        for collector in collectors:
            collector.on_interval(stats)
