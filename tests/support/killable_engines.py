"""Engines in this process that a test can kill, freeze and revive, for backends that wrap several."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from msgspec.structs import replace
from support.fake_runner import FakeRunner

from fllm import (
    BackendConfig,
    BackendContext,
    BackendUnavailable,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    LoraAdapter,
    ModelCard,
    PreparedImages,
    SamplingParams,
    UserError,
)
from fllm.batching import BatchedBackend, BatchLimits
from fllm.errors import ModelNotFound
from fllm_backends.replicas.backend import ReplicasBackend, replicas_backend
from fllm_backends.replicas.replica import Replica

BLOCK = 4


class KillableEngine:
    """A backend of the fake runner, as ``process`` behaves: its engine ends, and another one starts."""

    def __init__(
        self, config: BackendConfig, context: BackendContext, runner: Callable[[], FakeRunner]
    ) -> None:
        self.config = config
        self.context = context
        self.runner = runner
        self.adapters = [adapter.id for adapter in config.lora_modules]
        self.prepared: list[tuple[str, ...]] = []
        self.restarts: list[str] = []
        self.requests: list[GenerateRequest] = []
        self.frozen = False
        self.node = ""
        self._engine: BatchedBackend | None = None

    async def start(self) -> ModelCard:
        limits = BatchLimits(max_num_seqs=16, max_num_batched_tokens=64, block_size=BLOCK)
        inner = replace(self.config, replicas=1, enable_lora=False, lora_modules=())
        self._engine = BatchedBackend(self.runner(), inner, self.context, limits=limits)
        card = await self._engine.start()
        assert self.context.observer is not None
        self.context.observer.on_ready(self.node)
        return card

    async def kill(self) -> None:
        """End the engine as SIGKILL does."""
        assert self.context.observer is not None
        assert self._engine is not None
        engine, self._engine = self._engine, None
        self.context.observer.on_exit()
        await engine.stop()

    @property
    def thread(self) -> threading.Thread | None:
        """The thread of its engine."""
        return None if self._engine is None else self._engine._thread

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        self.requests.append(request)
        if self.frozen:
            await self._wait_for_the_end()
        if request.images and request.images not in self.prepared:
            raise BackendUnavailable("the images are not there")
        async with aclosing(self._running().generate(replace(request, images=(), adapter=0))) as outputs:
            async for output in outputs:
                yield output

    async def status(self) -> EngineStats:
        return await self._running().status()

    async def prepare_images(self, images: Sequence[bytes], client: str) -> PreparedImages:
        keys = tuple(image.hex() for image in images)
        self.prepared.append(keys)
        return PreparedImages(keys, ("",) * len(keys))

    async def load_adapter(self, adapter: LoraAdapter) -> None:
        self._running()
        if adapter.path == self.config.engine_name:
            raise UserError("it does not fit here")
        self.adapters.append(adapter.id)

    async def unload_adapter(self, adapter_id: int) -> None:
        self._running()
        if adapter_id not in self.adapters:
            raise ModelNotFound("it is not loaded")
        self.adapters.remove(adapter_id)

    def restart(self, reason: str) -> None:
        self.restarts.append(reason)
        self.frozen = False
        self.restarting = asyncio.create_task(self._restart())

    async def stop(self) -> None:
        if self._engine is not None:
            await self.kill()

    async def _restart(self) -> None:
        await self.kill()
        await self.start()

    async def _wait_for_the_end(self) -> None:
        engine = self._engine
        while engine is self._engine:
            await asyncio.sleep(0.001)
        raise BackendUnavailable("the engine has ended")

    def _running(self) -> BatchedBackend:
        if self._engine is None:
            raise BackendUnavailable("the engine has ended")
        return self._engine


class Engines:
    """A replicas backend with its engines."""

    def __init__(self, backend: ReplicasBackend) -> None:
        self.backend = backend

    def __getitem__(self, number: int) -> KillableEngine:
        engine = self.replica(number).backend
        assert isinstance(engine, KillableEngine)
        return engine

    def replica(self, number: int) -> Replica:
        return next(each for each in self.backend.fleet if each.name == f"replica-{number}")

    async def tokens(self, request: GenerateRequest) -> list[int]:
        return [token async for output in self.backend.generate(request) for token in output.token_ids]


def large_runner() -> FakeRunner:
    """Return a runner whose cache holds everything, and whose steps take long enough for a test to act."""
    return FakeRunner(blocks=4000, block_size=BLOCK, hook=lambda _: time.sleep(0.001))


@asynccontextmanager
async def engines(
    count: int, runner: Callable[[], FakeRunner] = large_runner, **config: object
) -> AsyncGenerator[Engines]:
    """Start a backend of this many replicas."""

    def create(config: BackendConfig, context: BackendContext) -> KillableEngine:
        return KillableEngine(config, context, runner)

    wanted = BackendConfig(model="m", chain=("killable",), replicas=count, **config)  # type: ignore[arg-type]
    backend = replicas_backend(wanted, BackendContext(load_backend=lambda _: create))
    assert isinstance(backend, ReplicasBackend)
    await backend.start()
    try:
        yield Engines(backend)
    finally:
        await backend.stop()


def request(name: str, token_ids: Sequence[int] = (1, 2, 3), **sampling: object) -> GenerateRequest:
    """Return a request with a seed for a few tokens."""
    wanted = SamplingParams(**{"max_tokens": 5, "seed": 0, **sampling})  # type: ignore[arg-type]
    return GenerateRequest(name, list(token_ids), wanted)
