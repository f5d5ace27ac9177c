"""An engine that generates what a test tells it to, for tests of routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from fllm.errors import BackendUnavailable
from fllm.values import (
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    SamplingParams,
    TokenLogprob,
)


class ScriptedEngine:
    """Generates the same pieces for each prompt, one per step, up to the limit of the request.

    It records its requests. Other attributes may be set at any time.
    """

    def __init__(self, pieces: Sequence[str], encode: Callable[[str], list[int]], card: ModelCard) -> None:
        self.pieces = list(pieces)
        self.requests: list[GenerateRequest] = []
        self.aborted: list[str] = []
        """Ids of requests that were aborted."""
        self.running = 0
        self.stalls_after: int | None = None
        """Number of steps after which nothing more is generated."""
        self.fails_after: int | None = None
        """Number of steps after which ``failure`` is raised."""
        self.failure: Exception = BackendUnavailable("the scripted engine failed")
        self._encode = encode
        self._card = card

    async def start(self) -> ModelCard:
        """Return the card."""
        return self._card

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the pieces, and a last output with ``stop`` or ``length``."""
        self.requests.append(request)
        self.running += 1
        is_over = False
        room = request.sampling.max_tokens
        try:
            for step, piece in enumerate([*self.pieces, None]):
                await asyncio.sleep(0)  # other requests run, and a client may leave
                if step == self.stalls_after:
                    await asyncio.Event().wait()
                if step == self.fails_after:
                    raise self.failure
                ids = [] if piece is None else self._encode(piece)[:room]
                room -= len(ids)
                is_over = piece is None or room == 0
                yield EngineOutput(
                    token_ids=ids,
                    logprobs=_logprobs(ids, request.sampling),
                    finish_reason="length" if room == 0 else "stop" if is_over else None,
                )
                if is_over:
                    return
        finally:
            self.running -= 1
            if not is_over:
                self.aborted.append(request.request_id)

    async def status(self) -> EngineStats:
        """Return the number of running requests."""
        return EngineStats(running=self.running)

    async def stop(self) -> None:
        """Do nothing."""


def _logprobs(ids: Sequence[int], sampling: SamplingParams) -> list[TokenLogprob] | None:
    """Return the same log-probability for all tokens, and a lower one for those that the request gives."""
    if sampling.logprobs is None or not ids:
        return None
    given = tuple((token, -2.0) for token in sampling.logprob_token_ids)
    return [TokenLogprob(token, -1.0, given or ((token, -1.0),)[: sampling.logprobs]) for token in ids]
