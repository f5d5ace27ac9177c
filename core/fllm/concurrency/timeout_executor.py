"""Threads for third-party code, which may never return."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from fllm.concurrency.hung_threads import HungThreads

T = TypeVar("T")
Job = tuple[Callable[[], Any], Callable[[Any, BaseException | None], None], asyncio.AbstractEventLoop]
"""A function, what to call on the event loop with its result or its exception, and the loop."""


class TaskTimeout(Exception):
    """The function takes too long; its thread is abandoned."""


class TooManyHung(Exception):
    """The function is not called, because too many threads hang already."""


class TimeoutExecutor:
    """Runs each function in a thread that runs no other one meanwhile. A thread that hangs is abandoned.

    The caller limits how many functions run at once. The threads are daemons, so that none keeps the process
    from exiting. Used on one event loop.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[SimpleQueue[Job | None]] = []
        """Job queues of the threads that have no job."""
        self._hung = HungThreads()
        """Abandoned threads whose functions still run."""
        self._closed = False

    async def run(self, function: Callable[[], T], *, client: str = "", time_limit: float) -> T:
        """Return the function's result, or raise its exception.

        Raise `TaskTimeout` if the function takes more than ``time_limit`` seconds, `TooManyHung` if too many
        did so and still run.
        """
        if self._hung.too_many(client):
            raise TooManyHung
        thread = self._idle.pop() if self._idle else self._start_thread()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        timer = loop.call_later(time_limit, self._time_out, client, done)
        done.add_done_callback(lambda done: self._release(done, thread, timer))
        thread.put((function, partial(self._finish, client, done), loop))
        return await asyncio.shield(done)

    def close(self) -> None:
        """Let the threads end after their current jobs."""
        self._closed = True
        for thread in self._idle:
            thread.put(None)
        self._idle.clear()

    def _start_thread(self) -> SimpleQueue[Job | None]:
        jobs: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=_work, args=(jobs,), name=self._name, daemon=True).start()
        return jobs

    def _time_out(self, client: str, done: asyncio.Future[Any]) -> None:
        if not done.done():
            self._hung.add(client)
            done.set_exception(TaskTimeout())

    def _finish(
        self, client: str, done: asyncio.Future[Any], result: object, error: BaseException | None
    ) -> None:
        if done.done():  # it took too long
            self._hung.remove(client)
        elif error is None:
            done.set_result(result)
        elif isinstance(error, StopIteration):  # no future can have it
            done.set_exception(RuntimeError("the function raised StopIteration"))
        else:
            done.set_exception(error)

    def _release(
        self, done: asyncio.Future[Any], thread: SimpleQueue[Job | None], timer: asyncio.TimerHandle
    ) -> None:
        timer.cancel()
        error = done.exception()  # also if the caller was cancelled, so that asyncio does not log it
        if self._closed or isinstance(error, TaskTimeout):
            thread.put(None)  # it ends if the function ever returns
        else:
            self._idle.append(thread)


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while job := jobs.get():
        function, finish, loop = job
        try:
            result, error = function(), None
        except BaseException as caught:  # noqa: BLE001  the caller of `run` gets it
            result, error = None, caught
        if loop.is_closed():
            return
        loop.call_soon_threadsafe(finish, result, error)
        del job, function, finish, result, error
