"""A semaphore that serves its clients in turn, so that frequent ones do not delay the others."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class RoundRobinSemaphore:
    """A number of units, granted to clients round-robin, and to each client's requests in order of arrival.

    The request whose turn it is waits until all its units are free. Those after it wait too, so that a large
    request is not passed for ever by small ones. Used on one event loop.

    With ``dynamic_shares``, a client that holds units gets more only if at least as many stay free as it then
    holds (dynamic thresholds, Choudhury and Hahne 1998). One client gets at most half of all units, two a
    third each, and some are left for the next client. Requests beyond the share delay no other client.
    """

    def __init__(self, units: int = 1, *, dynamic_shares: bool = False) -> None:
        self._units = units
        self._free = units
        self._dynamic_shares = dynamic_shares
        self._held: Counter[str] = Counter()
        """Units by client; no entry if there are none."""
        self._waiters: dict[str, OrderedDict[asyncio.Future[None], int]] = {}
        """Waiting requests by client: the future that is set when the units are granted, and their number.
        The first client is served next."""

    @property
    def units(self) -> int:
        """Number of units, free or not."""
        return self._units

    @property
    def free(self) -> int:
        """Units that nobody holds."""
        return self._free

    def waiting(self, client: str) -> int:
        """Return the number of requests of a client that wait."""
        return len(self._waiters.get(client, ()))

    @asynccontextmanager
    async def hold(self, client: str, units: int = 1) -> AsyncGenerator[None]:
        """Hold units. A request that is cancelled while it waits leaves the queue."""
        await self.acquire(client, units)
        try:
            yield
        finally:
            self.release(client, units)

    async def acquire(self, client: str, units: int = 1) -> None:
        """Take units, which `release` returns. Raise `ValueError` if the semaphore has fewer."""
        if units > self._units:
            raise ValueError(f"{units} units of {self._units}")
        if not self.try_acquire(client, units):
            await self._wait(client, units)

    def try_acquire(self, client: str, units: int = 1) -> bool:
        """Take units if they are free and no request is before this one; return whether it took them."""
        if units > self._free or self._exceeds_share(client, units):
            return False
        if self._waiters and (client in self._waiters or self._next_client() is not None):
            return False
        self._take(client, units)
        return True

    def release(self, client: str, units: int = 1) -> None:
        """Return units of a client, which go to the next requests in turn."""
        self._free += units
        self._held[client] -= units
        if not self._held[client]:
            del self._held[client]
        self._grant()

    def _take(self, client: str, units: int) -> None:
        self._free -= units
        self._held[client] += units

    async def _wait(self, client: str, units: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(client, OrderedDict())[granted] = units
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # granted and cancelled in the same iteration
                self.release(client, units)
            else:
                self._forget(client, granted)
            self._grant()  # those after it may need fewer units
            raise

    def _forget(self, client: str, granted: asyncio.Future[None]) -> None:
        queue = self._waiters.get(client)
        if queue is not None and queue.pop(granted, None) is not None and not queue:
            del self._waiters[client]

    def _grant(self) -> None:
        """Grant units to waiting requests as long as they suffice."""
        while (client := self._next_client()) is not None:
            queue = self._waiters[client]
            granted, units = next(iter(queue.items()))
            if not granted.done() and units > self._free:
                return
            del queue[granted]
            del self._waiters[client]
            if queue:
                self._waiters[client] = queue  # after all other clients
            if not granted.done():
                self._take(client, units)
                granted.set_result(None)

    def _next_client(self) -> str | None:
        """Return the first client whose next request was cancelled or does not exceed the client's share."""
        for client, queue in self._waiters.items():
            granted, units = next(iter(queue.items()))
            if granted.done() or not self._exceeds_share(client, units):
                return client
        return None

    def _exceeds_share(self, client: str, units: int) -> bool:
        if not self._dynamic_shares or client not in self._held:
            return False
        return self._held[client] + units > self._free - units
