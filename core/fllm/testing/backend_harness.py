"""A started backend for `BackendContract`, with helpers to generate and to watch its status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import count
from typing import Any, TypeVar

from msgspec import Struct

from fllm.constraints import Constraint
from fllm.errors import RequestError
from fllm.interfaces import Backend
from fllm.values import (
    EngineOutput,
    FinishReason,
    GenerateRequest,
    ModelCard,
    SamplingParams,
    TokenLogprob,
    merge_outputs,
)

T = TypeVar("T")

POLL_SECONDS = 0.01
"""Interval between two status checks."""


class GenerationResult(Struct, frozen=True):
    """Complete output of one request."""

    tokens: list[int]
    finish_reason: FinishReason | None
    stop_token: int | None
    logprobs: list[TokenLogprob] | None
    prompt_logprobs: list[TokenLogprob | None] | None


class BackendHarness:
    """A started backend, with default sampling parameters for its requests."""

    def __init__(self, backend: Backend, card: ModelCard) -> None:
        self.backend = backend
        self.card = card
        self._ids = count()

    def generate(
        self, token_ids: Sequence[int], *, constraint: Constraint | None = None, **sampling: Any
    ) -> AsyncGenerator[EngineOutput]:
        """Return the stream of outputs of a new request; by default greedy, 16 tokens, EOS ignored."""
        params = SamplingParams(**{"max_tokens": 16, "temperature": 0.0, "ignore_eos": True, **sampling})
        name = f"contract-{next(self._ids)}"
        return self.backend.generate(GenerateRequest(name, [*token_ids], params, constraint=constraint))

    async def complete(
        self, token_ids: Sequence[int], *, constraint: Constraint | None = None, **sampling: Any
    ) -> GenerationResult:
        """Return the complete output. Raise `AssertionError` unless only its end has a finish_reason."""
        async with aclosing(self.generate(token_ids, constraint=constraint, **sampling)) as stream:
            steps = [step async for step in stream]
        finishes = [step.finish_reason for step in steps]
        assert finishes, "generate() yielded no EngineOutput; the last one must have a finish_reason"
        assert finishes[-1], f"the last EngineOutput must have a finish_reason: {steps[-1]}"
        assert not any(finishes[:-1]), f"only the last EngineOutput may have a finish_reason, not {finishes}"
        whole = merge_outputs(steps)
        return GenerationResult(
            whole.token_ids, whole.finish_reason, whole.stop_token, whole.logprobs, whole.prompt_logprobs
        )

    async def rejects(self, token_ids: Sequence[int], **options: Any) -> bool:
        """Return whether the backend raises `RequestError` for this request."""
        try:
            await self.complete(token_ids, **options)
        except RequestError:
            return True
        return False

    async def in_flight(self) -> int:
        """Return the number of running and waiting sequences that the status reports."""
        status = await self.backend.status()
        return status.running + status.waiting

    async def wait_until_idle(self, seconds: float) -> None:
        """Wait until the status reports no running or waiting sequence."""
        try:
            async with asyncio.timeout(seconds):
                while await self.in_flight():  # noqa: ASYNC110  (the status can only be polled)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise AssertionError(
                f"status() still reports sequences {seconds:g} s after all requests were closed; "
                "free a sequence when its generator is closed"
            ) from None


class Session:
    """An event loop with a started backend, shared by the tests of a contract."""

    def __init__(self, make: Callable[[], Backend], timeout: float) -> None:
        self._runner = asyncio.Runner()
        self._timeout = timeout
        self._harness: BackendHarness | None = None
        try:
            self._harness = self._run(_start(make))
        finally:
            if self._harness is None:
                self._runner.close()

    def run(self, test: Callable[[BackendHarness], Awaitable[T]]) -> T:
        """Run a coroutine on the event loop of the backend, and return its result."""
        assert self._harness
        return self._run(test(self._harness))

    def close(self) -> None:
        """Stop the backend."""
        try:
            self.run(lambda harness: harness.backend.stop())
        finally:
            self._runner.close()

    def _run(self, work: Awaitable[T]) -> T:
        return self._runner.run(with_timeout(self._timeout, work))


async def with_timeout(seconds: float, work: Awaitable[T]) -> T:
    """Return the result of an awaitable. Raise `AssertionError` after this many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise AssertionError(
            f"not done after {seconds:g} s; the backend hangs, or `timeout` is too short"
        ) from None


async def _start(make: Callable[[], Backend]) -> BackendHarness:
    backend = make()
    return BackendHarness(backend, await backend.start())
