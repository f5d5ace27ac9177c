"""Threads for third-party code, which may never return."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from fllm.concurrency.hung_threads import HungThreads
from fllm.concurrency.round_robin_semaphore import RoundRobinSemaphore

T = TypeVar("T")
Job = tuple[Callable[[], Any], Callable[[Any, BaseException | None], None], asyncio.AbstractEventLoop]
"""A function, what to call on the event loop with its result or its exception, and the loop."""


class TaskTimeout(Exception):
    """The function takes too long; its thread is abandoned."""


class TimeoutExecutor:
    """Runs functions in at most ``count`` threads. A thread that hangs is abandoned and replaced.

    The threads are daemons, so that none keeps the process from exiting. Used on one event loop.
    """

    def __init__(self, count: int, name: str) -> None:
        self._name = name
        self._slots = RoundRobinSemaphore(count)
        self._idle: list[SimpleQueue[Job | None]] = []
        """Job queues of the threads that have no job."""
        self.hung = HungThreads()
        """Abandoned threads whose functions still run. The caller of `run` should limit them."""
        self._closed = False

    async def run(
        self,
        function: Callable[[], T],
        *,
        client: str = "",
        queue_timeout: float | None = None,
        time_limit: float,
    ) -> T:
        """Return the function's result, or raise its exception. Clients that wait are served in turn.

        Raise `TimeoutError` if no thread is free within ``queue_timeout`` seconds, `TaskTimeout` if the
        function takes more than ``time_limit`` seconds.
        """
        async with asyncio.timeout(queue_timeout):
            await self._slots.acquire(client)
        try:
            thread = self._idle.pop() if self._idle else self._start_thread()
        except RuntimeError:  # the system has no more threads
            self._slots.release(client)
            raise
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        timer = loop.call_later(time_limit, self._time_out, client, done)
        done.add_done_callback(lambda done: self._release(client, done, thread, timer))
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
            self.hung.add(client)
            done.set_exception(TaskTimeout())

    def _finish(
        self, client: str, done: asyncio.Future[Any], result: object, error: BaseException | None
    ) -> None:
        if done.done():  # it took too long
            self.hung.remove(client)
        elif error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def _release(
        self,
        client: str,
        done: asyncio.Future[Any],
        thread: SimpleQueue[Job | None],
        timer: asyncio.TimerHandle,
    ) -> None:
        timer.cancel()
        self._slots.release(client)
        error = (
            done.exception()
        )  # retrieved even if the caller was cancelled, so that asyncio does not log it
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
