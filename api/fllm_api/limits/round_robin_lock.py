"""A lock that serves its clients in turn, so that frequent ones do not delay the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class RoundRobinLock:
    """A lock that is granted to clients round-robin, and to each client's requests in order of arrival."""

    def __init__(self) -> None:
        self._locked = False
        self._waiters: dict[str, deque[asyncio.Future[None]]] = {}
        """Waiting requests by client. The first client is served next."""

    @asynccontextmanager
    async def acquire(self, client: str) -> AsyncGenerator[None]:
        """Hold the lock. A request that is cancelled while it waits leaves the queue."""
        if self._locked:
            await self._wait(client)
        self._locked = True
        try:
            yield
        finally:
            self._release()

    async def _wait(self, client: str) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(client, deque()).append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # granted and cancelled in the same iteration
                self._release()
            raise

    def _release(self) -> None:
        """Grant the lock to the next waiting request, or unlock it."""
        while self._waiters:
            client, queue = next(iter(self._waiters.items()))
            del self._waiters[client]
            granted = queue.popleft()
            if queue:
                self._waiters[client] = queue  # after all other clients
            if not granted.done():
                granted.set_result(None)
                return
        self._locked = False
