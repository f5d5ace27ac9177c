"""One child process, seen from its parent."""

from __future__ import annotations

import asyncio
import itertools
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from msgspec import msgpack

from fllm import BackendUnavailable, EngineOutput, EngineStats, GenerateRequest, ModelCard, Progress
from fllm.pipeline.output_queue import OutputQueue
from fllm.values import merge_outputs
from fllm_backends.process import messages
from fllm_backends.process.channel import Channel
from fllm_backends.process.engine_watchdog import wait_until_lost
from fllm_backends.process.messages import START, STATUS, Failed, ToParent
from fllm_backends.process.spawn import cause_of_death, kill, spawn

T = TypeVar("T")

STATUS_SECONDS = 5.0
"""An engine that takes longer to say how it is hangs."""
STOP_SECONDS = 10.0
"""How long an engine may take to stop before it is killed."""
LAST_WORDS_SECONDS = 2.0
"""Between the end of the connection and that of the process, whichever is first."""


class Engine:
    """An inner backend in a child process, from birth to death; it is never started twice."""

    def __init__(self, progress: Callable[[Progress], None], patience: float = 60.0) -> None:
        self.ready_at: float | None = None
        """When it became ready, by the event loop's clock."""
        self.absence: str | None = "the engine is being started"
        """Why it can't be asked for anything now."""
        self._farewell: str | None = None
        self._progress = progress
        self._patience = patience
        self._channel: Channel[ToParent] = Channel(msgpack.Decoder(ToParent).decode, self._receive)
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._guard: asyncio.Task[None] | None = None
        self._keys = itertools.count()
        self._streams: dict[int, OutputQueue[EngineOutput]] = {}
        self._card: asyncio.Future[ModelCard | Failed] | None = None
        self._status: asyncio.Future[EngineStats | Failed] | None = None

    async def start(self, message: messages.Start) -> ModelCard:
        """Raises what the inner backend's start raises, or `BackendUnavailable` if the child dies of it."""
        self._card = asyncio.get_running_loop().create_future()
        try:
            self._process = await spawn(self._channel)
            self._watcher = asyncio.create_task(self._watch(self._process))
            self._channel.send(message)
            card = _value(await self._card)
            self._guard = asyncio.create_task(self._kill_if_lost())
            return card
        except BaseException:
            await self.stop("the engine could not be started")
            raise

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """The inner backend's steps; closing the generator closes that one too."""
        self._check()
        key = next(self._keys)
        inbox = self._streams[key] = OutputQueue()
        self._channel.send(messages.Generate(key, request))
        try:
            finished = False
            while not finished:
                step = merge_outputs(await inbox.get())
                finished = step.finish_reason is not None
                yield step
        finally:
            if self._streams.pop(key, None):
                self._channel.send(messages.Abort(key))

    async def status(self) -> EngineStats:
        """The inner backend's status; raises `BackendUnavailable` if it does not come in time."""
        self._check()
        try:
            async with asyncio.timeout(STATUS_SECONDS):
                return _value(await asyncio.shield(self._ask_status()))
        except TimeoutError:
            raise BackendUnavailable("the engine process does not answer") from None

    async def stop(self, why: str = "the engine is stopping") -> None:
        """End the child: ask it, then kill it. One that still loads has nothing to lose, and is not asked."""
        ready = self.absence is None
        self.absence = self._farewell = why
        if self._process is None or self._watcher is None:
            return
        if ready:
            self._channel.send(messages.Stop())
            await asyncio.wait([self._watcher], timeout=STOP_SECONDS)
        kill(self._process)
        await self.gone()

    async def gone(self) -> None:
        """Wait until the child is dead, and those who waited for it know."""
        if self._watcher is not None:
            await asyncio.wait([self._watcher])

    def _ask_status(self) -> asyncio.Future[EngineStats | Failed]:
        if self._status is None:
            self._status = asyncio.get_running_loop().create_future()
            self._channel.send(messages.AskStatus())
        return self._status

    async def _kill_if_lost(self) -> None:
        """Ask how it is about once a second; kill it if it says that it is lost, or nothing for too long."""
        assert self._process is not None, "it has started"
        why = await wait_until_lost(self._ask_status, self._patience)
        if self.absence is None:
            self.absence = self._farewell = why
        kill(self._process)

    async def _watch(self, process: Process) -> None:
        ends = [asyncio.create_task(process.wait()), asyncio.create_task(self._channel.closed.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._guard is not None:
            self._guard.cancel()
        await asyncio.wait(ends, timeout=LAST_WORDS_SECONDS)
        kill(process)
        self._channel.close()
        await asyncio.wait(ends)
        self.absence = self._farewell or f"the engine process died ({cause_of_death(process)})"
        for key in (START, STATUS, *self._streams):
            self._failed(messages.failed(key, BackendUnavailable(self.absence)))

    def _check(self) -> None:
        if self.absence is not None:
            raise BackendUnavailable(self.absence)

    def _receive(self, message: ToParent) -> None:
        match message:
            case messages.Steps(steps=steps):
                for key, step in steps:
                    self._step(key, step)
            case messages.StatusIs(status=status):
                self._answer_status(status)
            case messages.Failed():
                self._failed(message)
            case messages.Loading(progress=progress):
                self._progress(progress)
            case messages.Started(card=card):
                self.absence = None
                self.ready_at = asyncio.get_running_loop().time()
                self._answer_start(card)

    def _step(self, key: int, step: EngineOutput) -> None:
        # A stream that was closed here may still speak for a moment.
        if inbox := self._streams.get(key):
            inbox.put(step)
            if step.finish_reason:
                del self._streams[key]

    def _failed(self, failure: Failed) -> None:
        if failure.key == START:
            self._answer_start(failure)
        elif failure.key == STATUS:
            self._answer_status(failure)
        elif inbox := self._streams.pop(failure.key, None):
            inbox.fail(failure.error())

    def _answer_start(self, answer: ModelCard | Failed) -> None:
        if self._card is not None and not self._card.done():
            self._card.set_result(answer)

    def _answer_status(self, answer: EngineStats | Failed) -> None:
        asked, self._status = self._status, None
        if asked is not None:
            asked.set_result(answer)


def _value(answer: T | Failed) -> T:
    if isinstance(answer, Failed):
        raise answer.error()
    return answer
