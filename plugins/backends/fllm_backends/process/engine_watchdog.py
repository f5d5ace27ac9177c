"""A watchdog of the engine process: it detects an engine that hangs or reports that it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fllm import EngineStats
from fllm.concurrency.heartbeat import Heartbeat
from fllm.errors import BackendLost
from fllm_backends.process.messages import Failed

CHECK_INTERVAL = 1.0
"""Seconds between two checks."""


async def wait_until_lost(
    status: Callable[[], asyncio.Future[EngineStats | Failed]], max_silence: float
) -> str:
    """Return why the engine is lost, as soon as it is.

    ``status`` returns the open status request, or sends a new one.
    """
    heartbeat = Heartbeat(min(CHECK_INTERVAL, max_silence), max_silence)
    while not heartbeat.expired:
        request = status()
        await asyncio.sleep(heartbeat.interval)
        heartbeat.record(alive=request.done())
        if request.done() and isinstance(response := request.result(), Failed):
            error = response.error()
            if isinstance(error, BackendLost):
                return error.message
    return f"the engine process has not responded for {max_silence:g} s"
