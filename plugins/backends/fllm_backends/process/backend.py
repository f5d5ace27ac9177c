"""The ``process`` backend: run another backend in a child process and restart it when it exits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

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
    LoraAdapter,
    ModelCard,
    PoolingOutput,
    PoolingRequest,
    PreparedImages,
)
from fllm.logs import configured_format
from fllm_backends.process.child_process import EngineProcess
from fllm_backends.process.messages import Start

MAX_RESTART_DELAY = 30.0
"""Maximum seconds between two attempts to start an engine."""
HEALTHY_SECONDS = 60.0
"""If an engine was ready for this long, its exit has a new cause, and the delays start again at 0."""
DEFAULT_ENGINE_NAME = BackendConfig(model="").engine_name

log = logging.getLogger("fllm.engine")


def process_backend(config: BackendConfig, context: BackendContext) -> Backend:
    """Wrap the next backend of ``config.chain``; raise `ConfigError` if there is none."""
    if not config.chain:
        raise ConfigError("the backend 'process' wraps another backend: name one after it")
    inner, *rest = config.chain
    level = logging.getLogger().getEffectiveLevel()
    start = Start(
        inner,
        replace(config, chain=tuple(rest)),
        context.plugins,
        level,
        configured_format(),
        report_cache=context.observer is not None,
    )
    return ProcessBackend(start, context)


class ProcessBackend:
    """Forwards requests to the current child process and restarts it when it exits."""

    def __init__(self, message: Start, context: BackendContext) -> None:
        self._message = message
        self._context = context
        self._adapters = {adapter.id: adapter for adapter in message.config.lora_modules}
        """Loaded adapters by id, for the next child process."""
        self._engine = self._new_engine()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> ModelCard:
        """Start the child and its backend; raise if that fails. Only later exits lead to a restart."""
        card = await self._engine.start(self._message)
        self._supervisor = asyncio.create_task(self._supervise())
        return card

    def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the inner backend's outputs; raise `BackendUnavailable` if the child is not running."""
        return self._engine.generate(request)

    async def pool(self, request: PoolingRequest) -> PoolingOutput:
        """Return the inner backend's vectors; raise `BackendUnavailable` if the child is not running."""
        pooled: PoolingOutput = await self._engine.call("pool", request)
        return pooled

    async def prepare_images(self, images: Sequence[bytes], client: str) -> PreparedImages:
        """Return what the inner backend prepares; raise `BackendUnavailable` if the child is not running."""
        prepared: PreparedImages = await self._engine.call("prepare_images", images, client)
        return prepared

    async def load_adapter(self, adapter: LoraAdapter) -> None:
        """Load an adapter into the inner backend, and into those of later child processes."""
        await self._engine.call("load_adapter", adapter)
        self._adapters[adapter.id] = adapter

    async def unload_adapter(self, adapter_id: int) -> None:
        """Unload an adapter of the inner backend."""
        await self._engine.call("unload_adapter", adapter_id)
        self._adapters.pop(adapter_id, None)

    async def status(self) -> EngineStats:
        """Return the inner backend's status; raise `BackendUnavailable` if the child does not send it."""
        return await self._engine.status()

    def restart(self, reason: str) -> None:
        """Kill the child; its requests fail with this reason. Another one is started."""
        self._engine.end(reason)

    async def stop(self) -> None:
        """Stop the child, and do not restart it."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        await self._engine.stop()

    async def _supervise(self) -> None:
        delay = 0.0
        while True:
            await self._engine.wait()
            delay = min(delay, self._max_delay())
            reason = self._engine.unavailable_reason
            log.error("%s%s; it is started again in %g s", self._prefix, reason, delay)
            await asyncio.sleep(delay)
            delay = next_delay(delay)
            await self._restart()

    async def _restart(self) -> None:
        self._engine = self._new_engine()
        config = replace(self._message.config, lora_modules=())
        message = replace(self._message, config=config, adapters=tuple(self._adapters.values()))
        try:
            await self._engine.start(message)
        except (FllmError, OSError) as error:
            log.error("%sthe engine can't be started again: %s", self._prefix, error)
        else:
            log.info("%sthe engine is ready again", self._prefix)

    @property
    def _prefix(self) -> str:
        """Name of the engine for log lines, if there are several."""
        name = self._message.config.engine_name
        return "" if name == DEFAULT_ENGINE_NAME else f"{name}: "

    def _new_engine(self) -> EngineProcess:
        return EngineProcess(self._context)

    def _max_delay(self) -> float:
        """Return a short delay for an engine that was ready, so that repeated kills do not keep it down."""
        ready_at = self._engine.ready_at
        if ready_at is None:
            return MAX_RESTART_DELAY
        return 0.0 if asyncio.get_running_loop().time() - ready_at > HEALTHY_SECONDS else 1.0


def next_delay(delay: float) -> float:
    """Return the delay of the next attempt: 1 s, 2 s, 4 s, up to `MAX_RESTART_DELAY`."""
    return min(max(1.0, 2 * delay), MAX_RESTART_DELAY)
