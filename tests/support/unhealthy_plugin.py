"""A backend that fails to start or generates slowly, as ``--backend-option`` selects."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable

import fllm


class UnhealthyBackend:
    """The option ``start`` is ``slow``, ``refuse`` or ``fail``. Generates one token per 20 ms, endlessly."""

    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:
        self._model = config.model
        self._start = config.options.get("start")
        self._progress = context.progress

    async def start(self) -> fllm.ModelCard:
        self._progress(fllm.Progress("Loading slowly", 0, 1))
        if self._start == "slow":
            await asyncio.sleep(600)
        if self._start == "refuse":
            raise fllm.ModelError("unsupported model;\ntry another")
        if self._start == "fail":
            raise fllm.BackendError("the engine failed")
        return fllm.ModelCard(tokenizer=self._model, max_model_len=100_000)

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        for count in range(1, request.sampling.max_tokens + 1):
            await asyncio.sleep(0.02)
            yield fllm.EngineOutput(
                token_ids=[65], finish_reason="length" if count == request.sampling.max_tokens else None
            )

    async def status(self) -> fllm.EngineStats:
        return fllm.EngineStats()

    async def stop(self) -> None:
        print("unhealthy: stopped", file=sys.stderr, flush=True)


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry(
        "unhealthy", f"{__name__}:UnhealthyBackend", "Fails as its options select.", isolated=False
    )
