"""A semaphore that serves its clients in turn, so that frequent ones do not delay the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

Waiter = tuple[asyncio.Future[None], int]
"""The future that is set when the units are granted, and the number of units."""


class RoundRobinSemaphore:
    """A number of units, granted to clients round-robin, and to each client's requests in order of arrival.

    The request whose turn it is waits until all its units are free. Those after it wait too, so that a large
    request is not passed for ever by small ones. Used on one event loop.
    """

    def __init__(self, units: int = 1) -> None:
        self._units = units
        self._free = units
        self._waiters: dict[str, deque[Waiter]] = {}
        """Waiting requests by client. The first client is served next."""

    @property
    def free(self) -> int:
        """Units that nobody holds."""
        return self._free

    @asynccontextmanager
    async def hold(self, client: str, units: int = 1) -> AsyncGenerator[None]:
        """Hold units. A request that is cancelled while it waits leaves the queue."""
        await self.acquire(client, units)
        try:
            yield
        finally:
            self.release(units)

    async def acquire(self, client: str, units: int = 1) -> None:
        """Take units, which `release` returns. Raise `ValueError` if the semaphore has fewer."""
        if units > self._units:
            raise ValueError(f"{units} units of {self._units}")
        if self._waiters or units > self._free:
            await self._wait(client, units)
        else:
            self._free -= units

    def release(self, units: int = 1) -> None:
        """Return units, which go to the next requests in turn."""
        self._free += units
        self._grant()

    async def _wait(self, client: str, units: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(client, deque()).append((granted, units))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # granted and cancelled in the same iteration
                self._free += units
            self._grant()  # those after it may need fewer units
            raise

    def _grant(self) -> None:
        """Grant units to waiting requests as long as they suffice."""
        while self._waiters:
            client, queue = next(iter(self._waiters.items()))
            granted, units = queue[0]
            if not granted.done() and units > self._free:
                return
            queue.popleft()
            del self._waiters[client]
            if queue:
                self._waiters[client] = queue  # after all other clients
            if not granted.done():
                self._free -= units
                granted.set_result(None)
