"""The TLS handshake of a connection, which counts as a connection from its first byte."""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from fllm_api.listener.connection_limit import ConnectionLimit
from fllm_api.listener.protocol import HttpProtocol
from fllm_api.tls import ServerTls
from fllm_api.trusted_proxies import peer_address

NO_TIMEOUT = 86400.0
SHUTDOWN_SECONDS = 2.0
"""Time for a client to confirm that the connection ends."""
WRITE_BUFFER = 64 * 1024
"""Bytes for a slow reader that the server keeps, as without TLS."""

log = logging.getLogger("fllm.http")


class TlsHandshake(asyncio.Protocol):
    """Performs a handshake, then hands the connection over to an `HttpProtocol`.

    asyncio itself would report a connection only after its handshake, so that those who never finish theirs
    would not be counted.
    """

    def __init__(
        self,
        *,
        http: Callable[..., HttpProtocol],
        tls: ServerTls,
        connection_limit: ConnectionLimit,
        timeout: float,
        server_state: ServerState,
        **settings: Any,
    ) -> None:
        """Create the protocol of one connection; ``settings`` are for ``http``."""
        self._create_http = partial(http, server_state=server_state, **settings)
        self._tls = tls
        self._connection_limit = connection_limit
        self._timeout = timeout or NO_TIMEOUT
        self._server_state = server_state
        self._received = b""
        """Data that arrived with the end of the handshake."""

    is_busy = False
    """Part of the interface of `HttpProtocol`: no request has arrived."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._peer = peer_address(get_remote_addr(transport))
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        if not self._connection_limit.add(self):
            # Its client reads why, if it completes the handshake while there are few such connections.
            self._connection_limit.mark_rejected(self)
        loop = asyncio.get_running_loop()
        handshake = loop.start_tls(
            transport,
            self,
            self._tls.context,
            server_side=True,
            ssl_handshake_timeout=self._timeout,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )
        # Its first step makes it the reader of the transport. A task would take that step too late: uvloop
        # starts to read as soon as this method returns.
        self._task = loop.create_task(self._complete(handshake, handshake.send(None)))

    def data_received(self, data: bytes) -> None:
        self._received += data

    def close(self) -> None:
        """Close the connection."""
        self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def finish(self) -> None:
        """Accept no further request: there is none yet."""

    async def _complete(
        self, handshake: Coroutine[Any, None, asyncio.Transport | None], awaited: Any
    ) -> None:
        try:
            secured = await _continue(handshake, awaited)
        except OSError as error:
            log.info("TLS handshake failed: %s: %s", self._peer, error or type(error).__name__)
            self._transport.abort()
            self._forget()
            return
        self._forget()
        if secured is None or self._transport.is_closing():
            return  # asyncio does not report a connection that is aborted during its handshake
        secured.set_write_buffer_limits(WRITE_BUFFER)
        http = self._create_http()
        secured.set_protocol(http)
        http.connection_made(secured)
        if self._received:
            http.data_received(self._received)

    def _forget(self) -> None:
        self._connection_limit.remove(self)
        self._server_state.connections.discard(self)


@types.coroutine
def _continue(
    coroutine: Coroutine[Any, None, asyncio.Transport | None], awaited: Any
) -> Generator[Any, None, asyncio.Transport | None]:
    """Run a coroutine to its end that has taken its first step, and awaits something."""
    yield awaited
    return (yield from coroutine.__await__())
