"""Turns of clients for work that takes CPU time: those who used much of it lately share a few slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from fllm.concurrency.round_robin_semaphore import RoundRobinSemaphore

T = TypeVar("T")

LIGHT_SHARE = 0.1
"""Share of a CPU's time that a client may use and still be light."""
LIGHT_SECONDS = 1.0
"""Seconds of CPU time that a light client may use at once."""
MAX_DEBT = 60.0
"""Seconds of CPU time beyond its share that count against a client at most."""


class Turn:
    """A slot that a client occupies."""

    def __init__(self, end: Callable[[float], None]) -> None:
        self.cpu_seconds = 0.0
        """CPU time used in this turn, which is charged to the client at its end."""
        self._end = end

    def end(self) -> None:
        """Leave the slot to the next client."""
        self._end(self.cpu_seconds)


class ClientTurns:
    """A number of slots. Each client has at most one at a time, and clients that wait are served in turn.

    A client is heavy while it has used more CPU time than its share. All heavy clients together have
    ``heavy_slots``, so that a light client waits for none of them. The accounting is the generic cell rate
    algorithm (ITU-T I.371). Used on one event loop.
    """

    def __init__(self, slots: int, heavy_slots: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = RoundRobinSemaphore(slots)
        self._heavy_slots = RoundRobinSemaphore(heavy_slots)
        self._clock = clock
        self._own: WeakValueDictionary[str, RoundRobinSemaphore] = WeakValueDictionary()
        """The only slot of each client that runs or waits."""
        self._paid_at: dict[str, float] = {}
        """When the share of each client will have paid for the time that it used, if that is not yet so."""

    async def run(self, client: str, work: Callable[[Turn], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the work, which runs in the client's turn.

        A caller that is cancelled while it waits leaves the queue. Work that runs is not cancelled, and
        occupies the client's slot to its end.
        """
        turn = await self.acquire(client)
        task = asyncio.ensure_future(work(turn))
        task.add_done_callback(lambda _: turn.end())
        task.add_done_callback(read_exception)
        return await asyncio.shield(task)

    async def acquire(self, client: str) -> Turn:
        """Wait for the client's turn, and return it. Its owner must end it."""
        with ExitStack() as held:
            for semaphore in self._semaphores(client):
                await semaphore.acquire(client)
                held.callback(semaphore.release, client)
            release = held.pop_all().close
        return Turn(lambda cpu_seconds: self._end(client, cpu_seconds, release))

    def is_heavy(self, client: str) -> bool:
        """Return whether the client has used more than its share."""
        return self._paid_at.get(client, 0.0) - self._clock() > LIGHT_SECONDS / LIGHT_SHARE

    def _semaphores(self, client: str) -> Iterator[RoundRobinSemaphore]:
        yield self._own.setdefault(client, RoundRobinSemaphore())
        if self.is_heavy(client):
            yield self._heavy_slots
        yield self._slots

    def _end(self, client: str, cpu_seconds: float, release: Callable[[], None]) -> None:
        now = self._clock()
        debt = max(self._paid_at.pop(client, now) - now, 0.0) + cpu_seconds / LIGHT_SHARE
        self._paid_at = {other: at for other, at in self._paid_at.items() if at > now}
        self._paid_at[client] = now + min(debt, MAX_DEBT / LIGHT_SHARE)
        release()


def read_exception(task: asyncio.Future[Any]) -> None:
    """Read the exception of a task that nobody waits for any more, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
