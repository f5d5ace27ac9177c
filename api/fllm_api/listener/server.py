"""uvicorn's server with this package's connections and a graceful shutdown."""

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

from fllm_api.lifecycle.drain import RequestDrain
from fllm_api.listener.connection_limit import ConnectionLimit
from fllm_api.listener.protocol import ConnectionTimeouts, HttpProtocol
from fllm_api.listener.sockets import configure_sockets, max_connections_for
from fllm_api.listener.tls_handshake import TlsHandshake
from fllm_api.tls import ServerTls
from fllm_api.trusted_proxies import TrustedProxies

KEEP_ALIVE_SECONDS = 75
"""Lifetime of an idle connection: longer than in clients' pools, so that they do not reuse a closing one."""
FINAL_SECONDS = 5.0
"""Time for ended requests to send their error, and for the last bytes to be sent."""

log = logging.getLogger("fllm.server")


class Listener(uvicorn.Server):
    """Serves an application. While it drains, it accepts connections and rejects their requests with 503."""

    on_ready: Callable[[], None] = staticmethod(lambda: None)

    def __init__(
        self,
        app: ASGIApp,
        drain: RequestDrain,
        timeouts: ConnectionTimeouts,
        *,
        max_connections: int,
        shutdown_timeout: float,
        trusted_proxies: TrustedProxies,
        tls: ServerTls | None = None,
    ) -> None:
        limit = ConnectionLimit(max_connections_for(max_connections))
        protocol: Callable[..., Any] = partial(
            HttpProtocol, timeouts=timeouts, connection_limit=limit, trusted_proxies=trusted_proxies
        )
        if tls is not None:
            protocol = partial(
                TlsHandshake, http=protocol, tls=tls, connection_limit=limit, timeout=timeouts.read
            )
        super().__init__(
            uvicorn.Config(
                cast(Any, app),
                # uvicorn calls this with keywords, like its own class.
                http=cast(Any, protocol),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=log.isEnabledFor(logging.DEBUG),
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._drain = drain
        self._shutdown_timeout = shutdown_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then call `on_ready`."""
        configure_sockets(sockets or [])
        await super().startup(sockets)
        self.on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller: uvicorn would raise them again after the shutdown."""
        yield

    def drain(self) -> None:
        """Accept no further requests, and stop once every accepted one is complete."""
        self._drain.start()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the requests in flight, up to the shutdown timeout; then close everything."""
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
        log.info("shutting down: %d requests in flight have %g s to finish", self._drain.in_flight, seconds)
        if await _finishes_within(seconds, self._drain.wait_until_empty()):
            return
        log.warning(
            "shutdown timeout: ending %d requests still in flight after %g s", self._drain.in_flight, seconds
        )
        self._drain.expire_all()
        await _finishes_within(FINAL_SECONDS, self._drain.wait_until_empty())

    async def _close_connections(self) -> None:
        for connection in self._connections:
            connection.finish()
            if not connection.is_busy:
                connection.close()
        await _finishes_within(FINAL_SECONDS, self._wait_until_closed())
        for connection in self._connections:
            connection.abort()
        await _finishes_within(FINAL_SECONDS, self._wait_until_closed())

    async def _wait_until_closed(self) -> None:
        # uvicorn keeps both as plain sets, which cannot be awaited.
        while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    @property
    def _connections(self) -> list[HttpProtocol]:
        return cast(list[HttpProtocol], list(self.server_state.connections))


async def _finishes_within(seconds: float, work: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True
