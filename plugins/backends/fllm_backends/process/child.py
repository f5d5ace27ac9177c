"""The process of an engine: ``python -m fllm_backends.process.child`` serves a backend to the server.

With an argument, the number of an open socket, it is a child of the server. Otherwise it reads a ticket from
its standard input, and connects with it.
"""

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
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from contextvars import copy_context
from functools import partial
from pathlib import Path
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
    ConfigError,
    EngineOutput,
    GenerateRequest,
    LoraAdapter,
    Progress,
    RequestError,
    ServesAdapters,
    UserError,
)
from fllm.concurrency.heartbeat import Heartbeat
from fllm.containment import mapped
from fllm.engine_host import Channel, Ticket, dial, read_ticket
from fllm.errors import FllmError, exhausted_resource
from fllm.extras import missing_extra
from fllm.interfaces import check_adapters
from fllm.logs import REQUEST_ID, configure
from fllm.plugins.loader import load_plugins
from fllm_backends.process import messages
from fllm_backends.process.memory_meter import MemoryMeter
from fllm_backends.process.messages import START, STATUS, ToChild, messages_version
from fllm_backends.process.model_files import read_parts

ORPHAN_GRACE_SECONDS = 2.0
"""Time to exit by itself after the server has exited."""

MAX_SILENCE = 60.0
"""Seconds without a message after which a server on another machine is gone: it sends one per second."""

CLOSED: int = getattr(select, "POLLRDHUP", 0)
"""The other end has closed the connection. Only Linux tells; elsewhere POLLHUP has to do."""

PROCESS_TITLE = "furiosa-llm engine"
"""Name in lists of processes."""

PART_HASHES = 4096
"""Number of blocks whose hashes are one message."""
PART_TOKENS = 256
"""Number of prompt tokens whose log-probabilities are one message."""

log = logging.getLogger("fllm.engine")


class EngineServer:
    """Serves the parent's requests to the inner backend, each in its own task."""

    def __init__(self, max_silence: float | None = None) -> None:
        self.channel: Channel[ToChild] = Channel(msgpack.Decoder(ToChild).decode, self._receive)
        self._max_silence = max_silence
        """Seconds without a message after which the server is gone; ``None``: the system notices."""
        self._heard = False
        """Whether a message has arrived since the last check."""
        self._stop_requested = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._outputs: list[tuple[int, EngineOutput]] = []
        self._backend: Backend | None = None
        self._memory = MemoryMeter()

    async def serve(self) -> None:
        """Stop the backend and return when the parent sends `Stop` or closes the connection."""
        ends: list[asyncio.Task[Any]] = [
            asyncio.create_task(event.wait()) for event in (self._stop_requested, self.channel.closed)
        ]
        if self._max_silence is not None:
            ends.append(asyncio.create_task(self._wait_for_silence(self._max_silence)))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._backend is not None:
            await self._backend.stop()
        self.channel.close()
        for task in (*ends, *self._tasks.values()):
            task.cancel()

    async def _wait_for_silence(self, max_silence: float) -> None:
        """Return when the server has sent nothing for long. It need not before the backend has started."""
        heartbeat = Heartbeat(min(1.0, max_silence / 4), max_silence)
        while not heartbeat.expired:
            await asyncio.sleep(heartbeat.interval)
            heartbeat.record(alive=self._heard or self._backend is None)
            self._heard = False
        log.error("the server has sent nothing for %g s; the engine exits", max_silence)

    def _receive(self, message: ToChild) -> None:
        self._heard = True
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
        plugins.check_engine_options()
        factory = plugins.backends.load(message.backend)
        loop = asyncio.get_running_loop()

        def send_progress(progress: Progress) -> None:
            loop.call_soon_threadsafe(self.channel.send, messages.LoadProgress(progress))

        context = BackendContext(
            progress=send_progress,
            plugins=message.plugins,
            load_grammar=plugins.grammars.load,
            load_drafter=plugins.drafters.load,
            observer=_CacheReporter(self.channel) if message.report_cache else None,
        )
        with mapped(_at_start):
            backend = factory(message.config, context)
            check_adapters(backend, message.config)
            card = await backend.start()
            for adapter in message.adapters:
                await _load_again(backend, adapter)
        if self._max_silence is not None:
            await self._send_model_files(Path(card.tokenizer))
        self._backend = backend
        gc.freeze()  # a full pass of the garbage collector over what is loaded would delay a step
        self.channel.send(messages.Started(card))

    async def _send_model_files(self, directory: Path) -> None:
        for part in read_parts(directory):
            self.channel.send(part)
            await asyncio.sleep(0)
            await self.channel.writable()

    async def _generate(self, key: int, request: GenerateRequest) -> None:
        REQUEST_ID.set(request.http_request_id)
        async with aclosing(self._started_backend().generate(request)) as outputs:
            async for output in outputs:
                if self.channel.congested:
                    await self.channel.writable()
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
        result = msgpack.encode(await method(*msgpack.decode(call.arguments, type=types.arguments)))
        if len(result) > types.max_bytes:
            raise BackendError(
                f"the result of {call.method} has {len(result)} bytes, more than {types.max_bytes}"
            )
        self.channel.send(messages.Returned(call.key, Raw(result)))

    async def _send_prompt_logprobs(self, key: int, output: EngineOutput) -> EngineOutput:
        """Send the log-probabilities of a prompt, and return the output without them."""
        logprobs = output.prompt_logprobs or []
        for start in range(0, len(logprobs), PART_TOKENS):
            self.channel.send(messages.PromptLogprobs(key, logprobs[start : start + PART_TOKENS]))
            await asyncio.sleep(0)
            await self.channel.writable()
        return replace(output, prompt_logprobs=None)

    async def _status(self) -> None:
        stats = await self._started_backend().status()
        memory = stats.memory + await self._memory.read()
        self.channel.send(messages.Status(replace(stats, memory=memory)))

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

    def on_ready(self, node: str) -> None:
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
    """Return the error of a start that a limit of the system or a missing extra ended, else itself."""
    if reason := missing_extra(error):
        return ConfigError(reason)
    reason = None if isinstance(error, FllmError) else exhausted_resource(error)
    return BackendUnavailable(reason) if reason else error


def main(arguments: list[str]) -> int:
    """Serve until the server sends `Stop` or closes the connection. Return the exit status."""
    setproctitle(PROCESS_TITLE)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal or service manager signals the whole group, but the parent drains before it sends Stop.
        # Not SIG_IGN, because a compiler started by an engine would inherit that.
        signal.signal(number, lambda *_: None)
    configure(logging.INFO, "console")
    try:
        if arguments:
            asyncio.run(_serve_parent(socket.socket(fileno=int(arguments[0]))))
        else:
            ticket = read_ticket(sys.stdin.buffer)
            _watch(_wait_for_end_of_input)
            asyncio.run(_serve_remote(ticket))
    except (ConfigError, BackendUnavailable) as error:
        log.error("the engine exits: %s", error)
        return 1
    return 0


async def _serve_parent(connection: socket.socket) -> None:
    """Serve over a socket that this process has inherited."""
    connection.set_inheritable(False)
    _watch(partial(_wait_for_end_of_connection, connection.fileno()))
    server = EngineServer()
    await asyncio.get_running_loop().create_unix_connection(lambda: server.channel, sock=connection)
    await server.serve()


async def _serve_remote(ticket: Ticket) -> None:
    """Connect with a ticket, then serve."""
    server = EngineServer(max_silence=MAX_SILENCE)
    await dial(ticket, server.channel, messages_version())
    _watch(partial(_wait_for_end_of_connection, server.channel.fileno()))
    await server.serve()


def _watch(wait: Callable[[], None]) -> None:
    """Exit soon after ``wait`` returns, even if the event loop hangs in the code of an engine."""

    def exit_afterwards() -> None:
        wait()
        time.sleep(ORPHAN_GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=exit_afterwards, name="orphan", daemon=True).start()


def _wait_for_end_of_connection(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, CLOSED)  # and POLLHUP, which is always reported
    poll.poll()


def _wait_for_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
