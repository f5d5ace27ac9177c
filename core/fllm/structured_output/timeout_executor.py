"""Threads for a stranger's code, which may never come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Job = tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class Strangers:
    """At most ``count`` threads that work at once; one that hangs is left alone, and another takes its place.

    They are daemons: no hanging one keeps the process from its end. Used on one event loop.
    """

    def __init__(self, count: int, name: str) -> None:
        self._name = name
        self._free = asyncio.Semaphore(count)
        self._idle: list[SimpleQueue[Job | None]] = []
        self._closed = False

    async def do(self, work: Callable[[], T], *, wait: float | None = None, patience: float) -> T:
        """The result. Raises `TimeoutError` if no thread is free within ``wait`` seconds, and `Hangs` if the
        work takes more than ``patience``."""
        async with asyncio.timeout(wait):
            await self._free.acquire()
        thread = self._idle.pop() if self._idle else self._start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        hanging = loop.call_later(patience, _give_up, done)
        done.add_done_callback(lambda done: self._release(done, thread, hanging))
        thread.put((work, done, loop))
        return await asyncio.shield(done)

    def close(self) -> None:
        """Let them end after what they are doing."""
        self._closed = True
        for thread in self._idle:
            thread.put(None)
        self._idle.clear()

    def _start(self) -> SimpleQueue[Job | None]:
        jobs: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=_work, args=(jobs,), name=self._name, daemon=True).start()
        return jobs

    def _release(
        self, done: asyncio.Future[Any], thread: SimpleQueue[Job | None], hanging: asyncio.TimerHandle
    ) -> None:
        hanging.cancel()
        self._free.release()
        error = done.exception()  # whoever asked for it may have left
        if self._closed or isinstance(error, Hangs):
            thread.put(None)  # it ends, if it ever comes back
        else:
            self._idle.append(thread)


class Hangs(Exception):
    """The work takes too long; its thread is left alone."""


def _give_up(done: asyncio.Future[Any]) -> None:
    if not done.done():
        done.set_exception(Hangs())


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while job := jobs.get():
        work, done, loop = job
        try:
            result, error = work(), None
        except BaseException as caught:  # noqa: BLE001  it is raised where the work was asked for
            result, error = None, caught
        if loop.is_closed():
            return
        loop.call_soon_threadsafe(_tell, done, result, error)
        del job, work, done, result, error


def _tell(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
