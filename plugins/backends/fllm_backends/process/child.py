"""The child process: ``python -m fllm_backends.process.child FD`` serves a backend over the socket ``FD``."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import aclosing
from contextvars import copy_context
from typing import Any

from msgspec import Raw, msgpack
from msgspec.structs import replace
from setproctitle import setproctitle

from fllm import (
    Backend,
    BackendContext,
    BackendError,
    BackendUnavailable,
    CacheChanges,
    EngineOutput,
    GenerateRequest,
    LoraAdapter,
    Progress,
    RequestError,
    ServesAdapters,
    UserError,
)
from fllm.containment import mapped
from fllm.errors import FllmError, exhausted_resource
from fllm.interfaces import check_adapters
from fllm.logs import REQUEST_ID, configure
from fllm.plugins.loader import load_plugins
from fllm_backends.process import messages
from fllm_backends.process.channel import Channel
from fllm_backends.process.messages import START, STATUS, ToChild

ORPHAN_GRACE_SECONDS = 2.0
"""Time to exit by itself after the parent has exited."""

PROCESS_TITLE = "furiosa-llm engine"
"""Name in lists of processes."""

PART_HASHES = 4096
"""Number of blocks whose hashes are one message."""
PART_TOKENS = 256
"""Number of prompt tokens whose log-probabilities are one message."""

log = logging.getLogger("fllm.engine")


class EngineServer:
    """Serves the parent's requests to the inner backend, each in its own task."""

    def __init__(self) -> None:
        self.channel: Channel[ToChild] = Channel(msgpack.Decoder(ToChild).decode, self._receive)
        self._stop_requested = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._outputs: list[tuple[int, EngineOutput]] = []
        self._backend: Backend | None = None

    async def serve(self) -> None:
        """Stop the backend and return when the parent sends `Stop` or closes the connection."""
        ends = [asyncio.create_task(event.wait()) for event in (self._stop_requested, self.channel.closed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._backend is not None:
            await self._backend.stop()
        self.channel.close()
        for task in (*ends, *self._tasks.values()):
            task.cancel()

    def _receive(self, message: ToChild) -> None:
        match message:
            case messages.Generate(key=key, request=request):
                self._run(key, self._generate(key, request))
            case messages.Call(key=key):
                self._run(key, self._call(message))
            case messages.Abort(key=key):
                self._abort(key)
            case messages.GetStatus():
                self._run(STATUS, self._status())
            case messages.Start():
                self._run(START, self._start(message))
            case messages.Stop():
                self._stop_requested.set()

    def _run(self, key: int, work: Coroutine[Any, Any, None]) -> None:
        context = copy_context()  # so that log lines about the end have the request's id, too
        task = asyncio.create_task(work, context=context)
        self._tasks[key] = task
        task.add_done_callback(lambda task: self._done(key, task), context=context)

    def _abort(self, key: int) -> None:
        if task := self._tasks.get(key):
            task.cancel()

    def _done(self, key: int, task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._flush()
            self._send_failure(key, error)

    def _send_failure(self, key: int, error: BaseException) -> None:
        if not isinstance(error, RequestError | UserError | BackendUnavailable):
            log.error("the engine failed", exc_info=error)
        self.channel.send(messages.Failed.from_error(key, error))

    async def _start(self, message: messages.Start) -> None:
        configure(message.log_level, message.log_format, force=True)
        plugins = load_plugins(message.plugins)
        factory = plugins.backends.load(message.backend)
        loop = asyncio.get_running_loop()

        def send_progress(progress: Progress) -> None:
            loop.call_soon_threadsafe(self.channel.send, messages.LoadProgress(progress))

        context = BackendContext(
            progress=send_progress,
            plugins=message.plugins,
            load_grammar=plugins.grammars.load,
            observer=_CacheReporter(self.channel) if message.report_cache else None,
        )
        with mapped(_at_start):
            backend = factory(message.config, context)
            check_adapters(backend, message.config)
            card = await backend.start()
            for adapter in message.adapters:
                await _load_again(backend, adapter)
        self._backend = backend
        gc.freeze()  # a full pass of the garbage collector over what is loaded would delay a step
        self.channel.send(messages.Started(card))

    async def _generate(self, key: int, request: GenerateRequest) -> None:
        REQUEST_ID.set(request.http_request_id)
        async with aclosing(self._started_backend().generate(request)) as outputs:
            async for output in outputs:
                if output.prompt_logprobs is not None:
                    output = await self._send_prompt_logprobs(key, output)
                if not self._outputs:
                    asyncio.get_running_loop().call_soon(self._flush)
                self._outputs.append((key, output))
                if output.finish_reason:
                    return
        raise BackendError("the backend ended a sequence without a finish reason")

    async def _call(self, call: messages.Call) -> None:
        types = messages.METHODS[call.method]
        method = getattr(self._started_backend(), call.method)
        result = await method(*msgpack.decode(call.arguments, type=types.arguments))
        self.channel.send(messages.Returned(call.key, Raw(msgpack.encode(result))))

    async def _send_prompt_logprobs(self, key: int, output: EngineOutput) -> EngineOutput:
        """Send the log-probabilities of a prompt, and return the output without them."""
        logprobs = output.prompt_logprobs or []
        for start in range(0, len(logprobs), PART_TOKENS):
            self.channel.send(messages.PromptLogprobs(key, logprobs[start : start + PART_TOKENS]))
            await asyncio.sleep(0)
        return replace(output, prompt_logprobs=None)

    async def _status(self) -> None:
        self.channel.send(messages.Status(await self._started_backend().status()))

    def _started_backend(self) -> Backend:
        assert self._backend is not None, "the parent sends requests only after Started"
        return self._backend

    def _flush(self) -> None:
        if not self._outputs:
            return
        outputs, self._outputs = self._outputs, []
        try:
            self.channel.send(messages.Outputs(outputs))
        except (TypeError, OverflowError) as error:  # an output with a value that msgpack can't encode
            for key, _ in outputs:
                self._abort(key)
                self._send_failure(key, error)


class _CacheReporter:
    """Sends the changes of the prefix cache to the parent, a limited number in each message."""

    def __init__(self, channel: Channel[ToChild]) -> None:
        self._channel = channel

    def on_ready(self) -> None:
        """Do nothing: the parent knows."""

    def on_exit(self) -> None:
        """Do nothing: the parent knows."""

    def on_cache_change(self, changes: CacheChanges) -> None:
        """Send the changes."""
        gained, lost = changes.gained, changes.lost
        for start in range(0, max(len(gained), len(lost)), PART_HASHES):
            end = start + PART_HASHES
            part = CacheChanges(gained=gained[start:end], lost=lost[start:end])
            self._channel.send(messages.CacheChanged(part))


async def _load_again(backend: Backend, adapter: LoraAdapter) -> None:
    """Load an adapter of an earlier process. If that fails, only requests for it get an error."""
    assert isinstance(backend, ServesAdapters), "the configuration was checked"
    try:
        await backend.load_adapter(adapter)
    except UserError as error:
        log.error("the adapter %s can't be loaded again: %s", adapter.name, error)


def _at_start(error: BaseException) -> BaseException:
    """Return the error of a start that a limit of the system ended, else the error itself."""
    reason = None if isinstance(error, FllmError) else exhausted_resource(error)
    return BackendUnavailable(reason) if reason else error


def main(descriptor: int) -> None:
    """Serve until the parent sends `Stop` or closes the connection."""
    setproctitle(PROCESS_TITLE)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal or service manager signals the whole group, but the parent drains before it sends Stop.
        # Not SIG_IGN, because a compiler started by an engine would inherit that.
        signal.signal(number, lambda *_: None)
    configure(logging.INFO, "console")
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    threading.Thread(target=_exit_with_parent, args=(descriptor,), name="orphan", daemon=True).start()
    asyncio.run(_serve(connection))


async def _serve(connection: socket.socket) -> None:
    server = EngineServer()
    await asyncio.get_running_loop().create_unix_connection(lambda: server.channel, sock=connection)
    await server.serve()


def _exit_with_parent(descriptor: int) -> None:
    """Exit soon after the parent, even if the event loop hangs in the code of an engine."""
    poll = select.poll()
    poll.register(descriptor, 0)  # only POLLHUP, which is always reported
    poll.poll()
    time.sleep(ORPHAN_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
