"""The other side of a backend's door: a started backend, and what a contract asks of it."""

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

POLL = 0.01
"""Seconds between two looks at the status."""


class Answer(Struct, frozen=True):
    """All that a backend said to one prompt."""

    tokens: list[int]
    finish_reason: FinishReason | None
    stop_token: int | None
    logprobs: list[TokenLogprob] | None
    prompt_logprobs: list[TokenLogprob | None] | None


class Door:
    """A started backend."""

    def __init__(self, backend: Backend, card: ModelCard) -> None:
        self.backend = backend
        self.card = card
        self._ids = count()

    def generate(
        self, token_ids: Sequence[int], *, constraint: Constraint | None = None, **sampling: Any
    ) -> AsyncGenerator[EngineOutput]:
        """The steps of an answer: greedy, of 16 tokens whatever they are, unless told otherwise."""
        asked = SamplingParams(**{"max_tokens": 16, "temperature": 0.0, "ignore_eos": True, **sampling})
        name = f"contract-{next(self._ids)}"
        return self.backend.generate(GenerateRequest(name, [*token_ids], asked, constraint=constraint))

    async def answer(
        self, token_ids: Sequence[int], *, constraint: Constraint | None = None, **sampling: Any
    ) -> Answer:
        """The whole answer, if it ends as it must: with the only step that has a ``finish``."""
        async with aclosing(self.generate(token_ids, constraint=constraint, **sampling)) as stream:
            steps = [step async for step in stream]
        finishes = [step.finish_reason for step in steps]
        assert finishes, "the answer has no step; its last must have a finish"
        assert finishes[-1], f"the last step has no finish: {steps[-1]}"
        assert not any(finishes[:-1]), f"only the last step may have a finish; they are {finishes}"
        whole = merge_outputs(steps)
        return Answer(
            whole.token_ids, whole.finish_reason, whole.stop_token, whole.logprobs, whole.prompt_logprobs
        )

    async def refused(self, token_ids: Sequence[int], **asked: Any) -> bool:
        """Whether it raises `RequestError`."""
        try:
            await self.answer(token_ids, **asked)
        except RequestError:
            return True
        return False

    async def in_flight(self) -> int:
        """How many sequences its status counts."""
        status = await self.backend.status()
        return status.running + status.waiting

    async def idle(self, patience: float) -> None:
        """Wait until its status counts no sequence."""
        try:
            async with asyncio.timeout(patience):
                while await self.in_flight():  # noqa: ASYNC110  (all there is to watch is the status)
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise AssertionError("its status still counts sequences, and all are closed") from None


class Session:
    """An event loop with a started backend on it, for one test after the other."""

    def __init__(self, make: Callable[[], Backend], patience: float) -> None:
        self._runner = asyncio.Runner()
        self._patience = patience
        self._door: Door | None = None
        try:
            self._door = self._run(_started(make))
        finally:
            if self._door is None:
                self._runner.close()

    def play(self, scenario: Callable[[Door], Awaitable[T]]) -> T:
        """Run a scenario to its end."""
        assert self._door
        return self._run(scenario(self._door))

    def close(self) -> None:
        """Stop the backend."""
        try:
            self.play(lambda door: door.backend.stop())
        finally:
            self._runner.close()

    def _run(self, work: Awaitable[T]) -> T:
        return self._runner.run(within(self._patience, work))


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What a piece of work gives; `AssertionError` where it hangs."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise AssertionError(f"after {seconds:g} s it has not come to an end") from None


async def _started(make: Callable[[], Backend]) -> Door:
    backend = make()
    return Door(backend, await backend.start())
