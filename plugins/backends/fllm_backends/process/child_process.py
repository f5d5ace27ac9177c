"""The parent's side of one child process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from msgspec import MsgspecError, Raw, msgpack
from msgspec.structs import replace

from fllm import (
    BackendContext,
    BackendError,
    BackendUnavailable,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    PlacedEngine,
)
from fllm.engine_host import Channel, FrameError
from fllm.values import merge_outputs
from fllm_backends.process import messages
from fllm_backends.process.engine_watchdog import wait_until_lost
from fllm_backends.process.messages import (
    MAX_FILES,
    MAX_RESULT_BYTES,
    START,
    STATUS,
    Failed,
    ToParent,
    decode_to_parent,
    messages_version,
)
from fllm_backends.process.open_request import OpenRequest

T = TypeVar("T")

CHILD_MODULE = "fllm_backends.process.child"
"""Module that the process of an engine runs."""

STATUS_TIMEOUT = 5.0
"""Seconds until an engine that does not send its status counts as unavailable."""
STOP_TIMEOUT = 10.0
"""Seconds until an engine that does not stop is killed."""
EXIT_TIMEOUT = 10.0
"""Seconds until an engine that was killed counts as ended, even if its placement does not say so."""
EXIT_GRACE_SECONDS = 2.0
"""Time between the end of the connection and that of the process, in either order."""


class EngineProcess:
    """An inner backend in a child process, which is started at most once."""

    def __init__(self, context: BackendContext) -> None:
        self.ready_at: float | None = None
        """Time when it became ready, on the event loop's clock."""
        self.unavailable_reason: str | None = "the engine is being started"
        """Why it can't serve requests now; None if it can."""
        self._exit_reason: str | None = None
        self._context = context
        self._channel: Channel[ToParent] = Channel(decode_to_parent, self._receive, MAX_RESULT_BYTES)
        self._process: PlacedEngine | None = None
        self._exit_task: asyncio.Task[None] | None = None
        self._health_task: asyncio.Task[None] | None = None
        self._keys = itertools.count()
        self._requests: dict[int, OpenRequest] = {}
        self._max_model_len = 0
        self._files: dict[str, bytearray] = {}
        """Files of the model, which an engine on another machine sends."""
        self._calls: dict[int, asyncio.Future[Raw | Failed]] = {}
        self._card: asyncio.Future[ModelCard | Failed] | None = None
        self._status: asyncio.Future[EngineStats | Failed] | None = None

    async def start(self, message: messages.Start) -> ModelCard:
        """Start the child; raise the inner backend's error, or `BackendUnavailable` if the child exits."""
        self._card = asyncio.get_running_loop().create_future()
        try:
            self._process = await self._context.engine_host.place(
                CHILD_MODULE, message.config, self._channel, messages_version
            )
            self._exit_task = asyncio.create_task(self._wait_for_exit(self._process))
            self._channel.send(message)
            card = _value(await self._card)
            if self._files:
                card = replace(card, tokenizer=await self._keep_files())
            self._health_task = asyncio.create_task(self._kill_if_lost(message.config.engine_timeout))
            return card
        except BaseException:
            await self.stop("the engine could not be started")
            raise

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Yield the inner backend's outputs; closing the generator aborts the request there."""
        self._require_available()
        await self._channel.writable()
        self._require_available()
        key = next(self._keys)
        opened = self._requests[key] = OpenRequest(request, self._max_model_len)
        self._channel.send(messages.Generate(key, request))
        try:
            finished = False
            while not finished:
                output = merge_outputs(await opened.get())
                finished = output.finish_reason is not None
                yield output
        finally:
            if self._requests.pop(key, None):
                self._channel.send(messages.Abort(key))

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the inner backend, one of `messages.METHODS`. Cancelling cancels it there.

        Raise what the method raises.
        """
        self._require_available()
        await self._channel.writable()
        self._require_available()
        key = next(self._keys)
        result: asyncio.Future[Raw | Failed] = asyncio.get_running_loop().create_future()
        self._calls[key] = result
        self._channel.send(messages.Call(key, method, Raw(msgpack.encode(arguments))))
        try:
            return _result(method, _value(await result))
        finally:
            del self._calls[key]
            if not result.done() or result.cancelled():
                self._channel.send(messages.Abort(key))

    async def status(self) -> EngineStats:
        """Return the inner backend's status; raise `BackendUnavailable` if it does not arrive in time."""
        self._require_available()
        try:
            async with asyncio.timeout(STATUS_TIMEOUT):
                return _value(await asyncio.shield(self._request_status()))
        except TimeoutError:
            raise BackendUnavailable("the engine process does not respond") from None

    def end(self, reason: str) -> None:
        """Kill the child; its requests fail with this reason, unless there is one already."""
        if self.unavailable_reason is None:
            self.unavailable_reason = self._exit_reason = reason
            if self._context.observer is not None:
                self._context.observer.on_exit()
        if self._process is not None:
            self._process.kill()

    async def stop(self, reason: str = "the engine is stopping") -> None:
        """Stop the child, or kill it if it is not ready or does not stop in time."""
        ready = self.unavailable_reason is None
        self.unavailable_reason = self._exit_reason = reason
        if self._process is None or self._exit_task is None:
            self._channel.abort()
            return
        if ready:
            self._channel.send(messages.Stop())
            await asyncio.wait([self._exit_task], timeout=STOP_TIMEOUT)
        self._process.kill()
        await self.wait()

    async def wait(self) -> None:
        """Wait until the child has exited and its open requests have failed."""
        if self._exit_task is not None:
            await asyncio.wait([self._exit_task])

    def _request_status(self) -> asyncio.Future[EngineStats | Failed]:
        if self._status is None:
            self._status = asyncio.get_running_loop().create_future()
            self._channel.send(messages.GetStatus())
        return self._status

    async def _kill_if_lost(self, max_silence: float) -> None:
        """Kill the child if it reports that its engine is lost, or does not respond."""
        self.end(await wait_until_lost(self._request_status, max_silence))

    async def _wait_for_exit(self, process: PlacedEngine) -> None:
        exited = asyncio.create_task(process.wait())
        ends = [exited, asyncio.create_task(self._channel.closed.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._health_task is not None:
            self._health_task.cancel()
        await asyncio.wait(ends, timeout=EXIT_GRACE_SECONDS)
        connection_lost = not exited.done()
        process.kill()
        self._channel.close()
        await asyncio.wait(ends, timeout=EXIT_TIMEOUT)
        self.unavailable_reason = self._exit_reason or self._describe_end(exited, connection_lost)
        for end in ends:
            end.cancel()
        if self._context.observer is not None:
            self._context.observer.on_exit()
        for key in (START, STATUS, *self._requests, *self._calls):
            self._fail(Failed.from_error(key, BackendUnavailable(self.unavailable_reason)))

    def _describe_end(self, exited: asyncio.Task[str], connection_lost: bool) -> str:
        if self._channel.failure is not None:
            return f"the engine process was killed: {self._channel.failure}"
        if connection_lost:
            return "the connection to the engine process was lost"
        return f"the engine process died ({exited.result()})"

    def _require_available(self) -> None:
        if self.unavailable_reason is not None:
            raise BackendUnavailable(self.unavailable_reason)

    def _receive(self, message: ToParent) -> None:
        match message:
            case messages.Outputs(outputs=outputs):
                self._put(outputs)
            case messages.CacheChanged(changes=changes):
                if self._context.observer is not None:
                    self._context.observer.on_cache_change(changes)
            case messages.PromptLogprobs(key=key, logprobs=logprobs):
                if request := self._requests.get(key):
                    request.put_prompt_logprobs(logprobs)
            case messages.Returned(key=key, result=returned):
                self._resolve_call(key, returned)
            case messages.Status(status=status):
                self._resolve_status(status)
            case messages.Failed():
                self._fail(message)
            case messages.LoadProgress(progress=progress):
                self._context.progress(progress)
            case messages.ModelFile():
                self._keep(message)
            case messages.Started(card=card):
                if self._card is not None and not self._card.done():
                    self._max_model_len = card.max_model_len
                    self.ready_at = asyncio.get_running_loop().time()
                    self.unavailable_reason = None
                    if self._context.observer is not None:
                        self._context.observer.on_ready(self._process.node if self._process else "")
                    self._resolve_start(card)

    async def _keep_files(self) -> str:
        """Write the files that the engine has sent; return their directory."""
        files, self._files = self._files, {}
        try:
            return await self._context.engine_host.keep_files(files)
        except OSError as error:
            raise BackendUnavailable(f"the files of the model can't be written: {error}") from error

    def _keep(self, part: messages.ModelFile) -> None:
        if self._card is None or self._card.done():
            raise FrameError("a file of the model arrives after the start")
        self._files.setdefault(part.name, bytearray()).extend(part.content)
        if len(self._files) > MAX_FILES or sum(map(len, self._files.values())) > MAX_RESULT_BYTES:
            raise FrameError(f"the files of the model are more than {MAX_FILES}, or too large")

    def _put(self, outputs: list[tuple[int, EngineOutput]]) -> None:
        for key, output in outputs:
            # Outputs of an aborted request may still arrive for a moment.
            if (request := self._requests.get(key)) is None:
                continue
            try:
                request.put(output)
            except BackendError as error:
                self._fail(Failed.from_error(key, error))
                self._channel.send(messages.Abort(key))
                continue
            if output.finish_reason:
                del self._requests[key]

    def _fail(self, failure: Failed) -> None:
        if failure.key == START:
            self._resolve_start(failure)
        elif failure.key == STATUS:
            self._resolve_status(failure)
        elif request := self._requests.pop(failure.key, None):
            request.fail(failure.error())
        else:
            self._resolve_call(failure.key, failure)

    def _resolve_call(self, key: int, result: Raw | Failed) -> None:
        if (call := self._calls.get(key)) is not None and not call.done():
            call.set_result(result)

    def _resolve_start(self, result: ModelCard | Failed) -> None:
        if self._card is not None and not self._card.done():
            self._card.set_result(result)

    def _resolve_status(self, result: EngineStats | Failed) -> None:
        request, self._status = self._status, None
        if request is not None:
            request.set_result(result)


def _result(method: str, encoded: Raw) -> Any:
    """Return the result of a call; raise `BackendError` if it is invalid."""
    types = messages.METHODS[method]
    try:
        if len(memoryview(encoded)) > types.max_bytes:
            raise ValueError(f"it has more than {types.max_bytes} bytes")
        return msgpack.decode(encoded, type=types.result)
    except (MsgspecError, ValueError) as error:
        raise BackendError(f"the engine's result of {method} is invalid: {error}") from error


def _value(result: T | Failed) -> T:
    if isinstance(result, Failed):
        raise result.error()
    return result
