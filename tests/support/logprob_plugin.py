"""A backend that returns log-probabilities at once; a route tells how long the event loop was busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import fllm

ALTERNATIVES = [tuple((token, -0.5 - token) for token in range(count)) for count in range(21)]
"""The most likely tokens of every position, by their number."""


class Busy:
    """Measures the processor time of the event loop between pauses, which other load does not change."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new measurement."""
        self.longest = 0.0
        self.began = time.process_time()

    async def measure(self) -> None:
        """Measure for ever."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - before)


BUSY = Busy()


class LogprobBackend:
    """Generates ``max_tokens`` times the token 97 (``a``), one per iteration of the event loop."""

    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:
        self._card = fllm.ModelCard(tokenizer=config.model, max_model_len=16384)

    async def start(self) -> fllm.ModelCard:
        self._ticks = asyncio.create_task(BUSY.measure())
        return self._card

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        sampling = request.sampling
        prompt = sampling.prompt_logprobs
        first = None if prompt is None else [_logprob(token, prompt) for token in request.token_ids]
        for count in range(1, sampling.max_tokens + 1):
            await asyncio.sleep(0)
            yield fllm.EngineOutput(
                token_ids=[97],
                logprobs=None if sampling.logprobs is None else [_logprob(97, sampling.logprobs)],
                prompt_logprobs=first if count == 1 else None,
                finish_reason="length" if count == sampling.max_tokens else None,
            )

    async def status(self) -> fllm.EngineStats:
        return fllm.EngineStats()

    async def stop(self) -> None:
        pass


def _logprob(token: int, alternatives: int) -> fllm.TokenLogprob:
    return fllm.TokenLogprob(token, -0.5, ALTERNATIVES[alternatives])


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry(
        "logprob", f"{__name__}:LogprobBackend", "Returns log-probabilities.", isolated=False
    )


@fllm.hookimpl
def fllm_routes() -> Iterable[Any]:
    from litestar import get

    @get("/busy")
    async def busy() -> dict[str, float]:
        """Return the figures since the last request of this route, in seconds."""
        figures = {"longest": BUSY.longest, "total": time.process_time() - BUSY.began}
        BUSY.reset()
        return figures

    yield busy
