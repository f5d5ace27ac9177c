"""A backend whose start and generation go as ``--backend-option`` says: for tests of a server's life."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable

import fllm


class MoodyBackend:
    """``start`` = ``slow``, ``refuse`` or ``fail``; generates one token every 20 ms, without end."""

    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:
        self._model = config.model
        self._start = config.options.get("start")
        self._tell = context.progress

    async def start(self) -> fllm.ModelCard:
        self._tell(fllm.Progress("Loading moods", 0, 1))
        if self._start == "slow":
            await asyncio.sleep(600)
        if self._start == "refuse":
            raise fllm.ModelError("this model is not to my taste;\ntry another")
        if self._start == "fail":
            raise fllm.BackendError("the engine choked")
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
        print("moody: stopped", file=sys.stderr, flush=True)


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry("moody", f"{__name__}:MoodyBackend", "Does as it is told.", isolated=False)
