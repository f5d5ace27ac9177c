"""The child process: ``python -m fllm_backends.process.child FD`` serves a backend over the socket FD."""

from __future__ import annotations

import asyncio
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

from msgspec import msgpack
from setproctitle import setproctitle

from fllm import (
    Backend,
    BackendContext,
    BackendError,
    BackendUnavailable,
    EngineOutput,
    GenerateRequest,
    Progress,
    RequestError,
    UserError,
)
from fllm.logs import REQUEST_ID, configure
from fllm.plugins.loader import load_plugins
from fllm_backends.process import messages
from fllm_backends.process.channel import Channel
from fllm_backends.process.messages import START, STATUS, ToChild

ORPHAN_SECONDS = 2.0
"""How long an orphan may take to end by itself."""

TITLE = "furiosa-llm engine"
"""In lists of processes."""

log = logging.getLogger("fllm.engine")


class Server:
    """Does what the parent asks of the inner backend, each request in a task of its own."""

    def __init__(self) -> None:
        self.channel: Channel[ToChild] = Channel(msgpack.Decoder(ToChild).decode, self._receive)
        self._asked_to_stop = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._steps: list[tuple[int, EngineOutput]] = []
        self._backend: Backend | None = None

    async def serve(self) -> None:
        """Return once the parent asks to stop or is gone, and the backend has stopped."""
        ends = [asyncio.create_task(event.wait()) for event in (self._asked_to_stop, self.channel.closed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._backend is not None:
            await self._backend.stop()
        self.channel.close()
        for task in (*ends, *self._tasks.values()):
            task.cancel()

    def _receive(self, message: ToChild) -> None:
        match message:
            case messages.Generate(key=key, prompt=prompt):
                self._run(key, self._generate(key, prompt))
            case messages.Abort(key=key):
                self._abort(key)
            case messages.AskStatus():
                self._run(STATUS, self._status())
            case messages.Start():
                self._run(START, self._start(message))
            case messages.Stop():
                self._asked_to_stop.set()

    def _run(self, key: int, work: Coroutine[Any, Any, None]) -> None:
        context = copy_context()  # what is logged of the end bears the request's id, too
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
            self._tell(key, error)

    def _tell(self, key: int, error: BaseException) -> None:
        if not isinstance(error, RequestError | UserError | BackendUnavailable):
            log.error("the engine failed", exc_info=error)
        self.channel.send(messages.failed(key, error))

    async def _start(self, message: messages.Start) -> None:
        configure(message.log_level, message.log_format, anew=True)
        factory = load_plugins(message.plugins).backends.load(message.backend)
        loop = asyncio.get_running_loop()

        def tell(progress: Progress) -> None:
            loop.call_soon_threadsafe(self.channel.send, messages.Loading(progress))

        backend = factory(message.config, BackendContext(progress=tell, plugins=message.plugins))
        card = await backend.start()
        self._backend = backend
        self.channel.send(messages.Started(card))

    async def _generate(self, key: int, prompt: GenerateRequest) -> None:
        REQUEST_ID.set(prompt.asked_in)
        async with aclosing(self._started().generate(prompt)) as steps:
            async for step in steps:
                if not self._steps:
                    asyncio.get_running_loop().call_soon(self._flush)
                self._steps.append((key, step))
                if step.finish_reason:
                    return
        raise BackendError("the backend ended a sequence without saying why")

    async def _status(self) -> None:
        self.channel.send(messages.StatusIs(await self._started().status()))

    def _started(self) -> Backend:
        assert self._backend is not None, "the parent asks nothing before it is told of the start"
        return self._backend

    def _flush(self) -> None:
        if not self._steps:
            return
        steps, self._steps = self._steps, []
        try:
            self.channel.send(messages.Steps(steps))
        except (TypeError, OverflowError) as error:  # something in a step that msgpack can't carry
            for key, _ in steps:
                self._abort(key)
                self._tell(key, error)


def main(descriptor: int) -> None:
    """Serve until the parent asks to stop, or is gone."""
    setproctitle(TITLE)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal and a service manager signal the whole group; the parent drains first and asks then.
        # No SIG_IGN: a compiler started by an engine would inherit that.
        signal.signal(number, lambda *_: None)
    configure(logging.INFO, "console")
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    threading.Thread(target=_end_with_parent, args=(descriptor,), name="orphan", daemon=True).start()
    asyncio.run(_serve(end))


async def _serve(end: socket.socket) -> None:
    server = Server()
    await asyncio.get_running_loop().create_unix_connection(lambda: server.channel, sock=end)
    await server.serve()


def _end_with_parent(descriptor: int) -> None:
    """Exit if the parent is gone, even where the event loop hangs in an engine's code."""
    poll = select.poll()
    poll.register(descriptor, 0)  # only POLLHUP, which always is reported
    poll.poll()
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
