"""A backend that holds another in a child process, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from msgspec.structs import replace

from fllm import (
    Backend,
    BackendConfig,
    BackendContext,
    ConfigError,
    EngineOutput,
    EngineStats,
    FllmError,
    GenerateRequest,
    ModelCard,
)
from fllm.logs import configured_format
from fllm_backends.process.child_process import Engine
from fllm_backends.process.messages import Start

LONGEST_DELAY = 30.0
"""Seconds between two attempts to start an engine that won't start."""
HEALTHY_SECONDS = 60.0
"""An engine that was ready for so long died of something new."""

log = logging.getLogger("fllm.engine")


def process_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """Wrap the backend that is next in ``config.chain``; raises `ConfigError` if there is none."""
    if not config.chain:
        raise ConfigError("the backend 'process' holds another one, and none is named")
    inner, *rest = config.chain
    level = logging.getLogger().getEffectiveLevel()
    start = Start(inner, replace(config, chain=tuple(rest)), context.plugins, level, configured_format())
    return ProcessBackend(start, context)


class ProcessBackend:
    """The door to whichever child process lives now."""

    def __init__(self, message: Start, context: BackendContext) -> None:
        self._message = message
        self._context = context
        self._engine = self._new_engine()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> ModelCard:
        """Start the child and its backend; an engine that dies later is started again, but not this time."""
        card = await self._engine.start(self._message)
        self._supervisor = asyncio.create_task(self._supervise())
        return card

    def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """The inner backend's steps; raises `BackendUnavailable` if the child dies, or is not there."""
        return self._engine.generate(request)

    async def status(self) -> EngineStats:
        """The inner backend's status, from the child's event loop."""
        return await self._engine.status()

    async def stop(self) -> None:
        """End the child, and leave nothing of it."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        await self._engine.stop()

    async def _supervise(self) -> None:
        delay = 0.0
        while True:
            await self._engine.gone()
            delay = min(delay, self._longest_delay())
            log.error("%s; it is started again in %g s", self._engine.absence, delay)
            await asyncio.sleep(delay)
            delay = longer(delay)
            await self._start_again()

    async def _start_again(self) -> None:
        self._engine = self._new_engine()
        try:
            await self._engine.start(self._message)
        except (FllmError, OSError) as error:
            log.error("the engine can't be started again: %s", error)
        else:
            log.info("the engine is ready again")

    def _new_engine(self) -> Engine:
        return Engine(self._context.progress, self._message.config.engine_timeout)

    def _longest_delay(self) -> float:
        """For an engine that has been ready: who kills it again and again keeps it away for no longer."""
        ready_at = self._engine.ready_at
        if ready_at is None:
            return LONGEST_DELAY
        return 0.0 if asyncio.get_running_loop().time() - ready_at > HEALTHY_SECONDS else 1.0


def longer(delay: float) -> float:
    """The delay before the next attempt: 1 s, 2 s, 4 s, up to `LONGEST_DELAY`."""
    return min(max(1.0, 2 * delay), LONGEST_DELAY)
