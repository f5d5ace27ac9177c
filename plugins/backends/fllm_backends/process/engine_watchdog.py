"""Whether a child that does not die has to be killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fllm import EngineStats
from fllm.errors import BackendLost
from fllm_backends.process.messages import Failed

BEAT = 1.0
"""Seconds between two questions."""


async def lost(ask: Callable[[], asyncio.Future[EngineStats | Failed]], patience: float) -> str:
    """Return why the engine is lost, once it is; ``ask`` gives the question that is open, or asks anew.

    Silence is counted in beats, not by a clock: one that was stopped together with this process has not been
    silent while nobody asked.
    """
    beat, silent = min(BEAT, patience), 0.0
    while silent < patience:
        asked = ask()
        await asyncio.sleep(beat)
        silent = 0.0 if asked.done() else silent + beat
        if asked.done() and isinstance(answer := asked.result(), Failed):
            error = answer.error()
            if isinstance(error, BackendLost):
                return error.message
    return f"the engine process gives no sign of life for {patience:g} s"
