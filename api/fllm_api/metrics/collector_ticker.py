"""The clock of collectors that want one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from litestar import Litestar

from fllm.interfaces import Backend, Ticking
from fllm.values import EngineStats
from fllm_api.app_state import AppState
from fllm_api.metrics.isolated_collector import Guarded

PERIOD = 1.0
"""Seconds between two ticks."""


def ticking(server: AppState) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    """For the application's lifespan: calls `Ticking.tick` about once a second."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:  # noqa: ARG001 (Litestar passes it)
        collectors = [Guarded(collector) for collector in server.collectors if isinstance(collector, Ticking)]
        task = asyncio.create_task(_tick(server.backend, collectors)) if collectors else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    return lifespan


async def status_of(backend: Backend) -> EngineStats | None:
    """The backend's status, if it answers."""
    try:
        return await backend.status()
    except Exception:  # noqa: BLE001  a stranger's code; whatever it raises, it is not well
        return None


async def _tick(backend: Backend, collectors: Sequence[Ticking]) -> None:
    while True:
        await asyncio.sleep(PERIOD)
        status = await status_of(backend)
        for collector in collectors:
            collector.tick(status)
