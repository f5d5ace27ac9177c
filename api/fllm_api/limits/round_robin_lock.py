"""Taking turns: one at a time, and who comes often waits behind who comes seldom."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """A lock whose clients are served round robin, each client's requests in their order."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def of(self, client: str) -> AsyncGenerator[None]:
        """Hold the lock; who is cancelled while waiting has never been there."""
        if self._taken:
            await self._wait(client)
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, client: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came at the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            client, own = next(iter(self._waiting.items()))
            del self._waiting[client]
            turn = own.popleft()
            if own:
                self._waiting[client] = own  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False
