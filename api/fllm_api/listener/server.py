"""The server that listens: uvicorn's, with our connections and our end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import uvicorn
from litestar.types import ASGIApp

from fllm_api.lifecycle.drain import Drain
from fllm_api.listener.connection_limit import Crowd
from fllm_api.listener.protocol import ConnectionTimeouts, Protocol
from fllm_api.listener.sockets import connections_possible, tune

KEEP_ALIVE = 75
"""Seconds an idle connection lives: longer than in clients' pools, so that no request meets a closing one."""
LAST_WORDS = 5.0
"""Seconds for requests that were ended to say so, and for the last bytes to leave."""

log = logging.getLogger("fllm.server")


class Listener(uvicorn.Server):
    """Listens until it is told to drain, and still listens while it drains: to say so."""

    on_ready: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self,
        app: ASGIApp,
        drain: Drain,
        limits: ConnectionTimeouts,
        *,
        max_connections: int,
        shutdown_timeout: float,
    ) -> None:
        crowd = Crowd(connections_possible(max_connections))
        super().__init__(
            uvicorn.Config(
                cast(Any, app),
                # Called with keywords, as uvicorn's own class would be.
                http=cast(Any, partial(Protocol, limits=limits, crowd=crowd)),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=log.isEnabledFor(logging.DEBUG),
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )
        self._draining = drain
        self._shutdown_timeout = shutdown_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        tune(sockets or [])
        await super().startup(sockets)
        self.on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs this server: uvicorn raises them again at its end."""
        yield

    def drain(self) -> None:
        """Accept nothing more, and end once everything that was accepted is answered."""
        self._draining.begin()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for what is under way, as long as that may take; then leave nothing open."""
        for connection in self._connections:
            connection.finish()
        await self._finish_requests()
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        await self._close_connections()
        await self.lifespan.shutdown()

    async def _finish_requests(self) -> None:
        seconds = self._shutdown_timeout
        log.info("shutting down: %d requests are under way, and have %g s", self._draining.under_way, seconds)
        if await _within(seconds, self._draining.done()):
            return
        log.warning(
            "%d requests are not finished after %g s: they are ended", self._draining.under_way, seconds
        )
        self._draining.end()
        await _within(LAST_WORDS, self._draining.done())

    async def _close_connections(self) -> None:
        for connection in self._connections:
            connection.finish()
            if not connection.at_work:
                connection.close()
        await _within(LAST_WORDS, self._closed())
        for connection in self._connections:
            connection.abort()
        await _within(LAST_WORDS, self._closed())

    async def _closed(self) -> None:
        # Both are uvicorn's, and plain sets.
        while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    @property
    def _connections(self) -> list[Protocol]:
        return cast(list[Protocol], list(self.server_state.connections))


async def _within(seconds: float, work: Awaitable[None]) -> bool:
    """Whether it was done in time."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True
