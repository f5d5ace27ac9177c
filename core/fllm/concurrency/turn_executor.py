"""Threads in which clients take turns, for work that is done in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct

from fllm.concurrency.client_turns import ClientTurns, Turn
from fllm.concurrency.timeout_executor import TimeoutExecutor

T = TypeVar("T")

Pieces: TypeAlias = Generator[int, None, T]
"""Work in pieces, each short. It yields the cost of a piece after it, and returns the result."""

TURN_SECONDS = 0.02
"""Time after which a client's turn ends, once the current piece is done."""
GIL_SECONDS = 0.001
"""Time after which a thread lets other threads run. Python would make the event loop wait 5 ms each time."""
PAUSE_SECONDS = 0.00005
"""Length of the pause: long enough that a waiting thread takes the GIL."""


class Result(Struct, Generic[T], frozen=True):
    """The result of finished work."""

    value: T


class Used(Struct):
    """What a turn has used so far."""

    cost: int = 0
    cpu_seconds: float = 0.0


def _nothing(cost: int) -> None:
    """Charge nothing."""


class TurnExecutor:
    """Runs work in threads: ``count`` for clients that use much CPU time, and one more for the others.

    A client delays another by one turn, however much work it has. Work whose caller is cancelled ends with
    its current turn. Used on one event loop.
    """

    def __init__(self, count: int = 1, name: str = "turns", *, time_limit: float = 60.0) -> None:
        self._turns = ClientTurns(count + 1, heavy_slots=count)
        self._threads = TimeoutExecutor(name)
        self._time_limit = time_limit

    async def run(self, work: Pieces[T], client: str, charge: Callable[[int], object] = _nothing) -> T:
        """Return the result of the work, or raise its error.

        ``charge`` is called with the cost of the pieces that are done, also if the work then fails. Raise
        `TaskTimeout` if a piece takes longer than the time limit, `TooManyHung` if too many do so already.
        """
        result: Result[T] | None = None
        while result is None:
            result = await self._turns.run(client, partial(self._run_turn, work, charge, client))
        return result.value

    async def _run_turn(
        self, work: Pieces[T], charge: Callable[[int], object], client: str, turn: Turn
    ) -> Result[T] | None:
        used = Used()
        try:
            run = partial(run_turn, work, used)
            return await self._threads.run(run, client=client, time_limit=self._time_limit)
        finally:
            turn.cpu_seconds = used.cpu_seconds
            charge(used.cost)

    def close(self) -> None:
        """Let the threads end after their current turns."""
        self._threads.close()


def run_turn(work: Pieces[T], used: Used) -> Result[T] | None:
    """Do pieces of the work for `TURN_SECONDS`; return the result if it is finished."""
    began = time.thread_time()
    now = paused = time.monotonic()
    ends = now + TURN_SECONDS
    try:
        while now < ends:
            used.cost += next(work)
            now = time.monotonic()
            if now - paused > GIL_SECONDS:
                time.sleep(PAUSE_SECONDS)
                paused = now
    except StopIteration as done:
        return Result(done.value)
    finally:
        used.cpu_seconds = time.thread_time() - began
    return None


def run_at_once(work: Pieces[T], charge: Callable[[int], object] = _nothing) -> T:
    """Return the result of work that is short in total, in the calling thread."""
    cost = 0
    try:
        while True:
            cost += next(work)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        charge(cost)
