"""The port to which engines connect. It accepts those that the server has started, and nobody else."""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from typing import Any

from msgspec import Struct

from fllm.engine_host.addresses import detect_loss, format_address
from fllm.engine_host.channel import Channel
from fllm.engine_host.frames import FrameError, FrameProtocol
from fllm.engine_host.handshake import (
    MAX_MESSAGE_BYTES,
    SECRET_BYTES,
    Credentials,
    FrameKeys,
    Hello,
    ServerHandshake,
)
from fllm.engine_host.tls import ServerCertificate
from fllm.errors import ConfigError

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a connection may take to authenticate itself."""
MAX_PENDING = 64
"""Maximum number of connections that have not authenticated themselves; the oldest ends for a new one."""
LOG_INTERVAL = 60.0
"""Minimum seconds between two log lines about refused connections."""

log = logging.getLogger("fllm.engine")


class Expected(Struct, eq=False):
    """An engine that was started and has not connected yet."""

    credentials: Credentials
    channel: Channel[Any]
    connected: asyncio.Future[None]
    """Fails with `ConfigError` if the engine has another version."""


class EngineListener:
    """Accepts connections of engines on one port."""

    def __init__(self, certificate: ServerCertificate | None = None) -> None:
        self.certificate = certificate
        self._expected: dict[str, Expected] = {}
        self._pending: dict[IncomingConnection, None] = {}
        """Connections that have not authenticated themselves, the oldest first."""
        self._server: asyncio.Server | None = None
        self._refused = 0
        self._logged_at = -LOG_INTERVAL

    async def listen(self, host: str, port: int) -> int:
        """Listen; return the port, which is a free one if ``port`` is 0. Raise `ConfigError` if it can't."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: IncomingConnection(self), host, port, backlog=MAX_PENDING
            )
        except (OSError, UnicodeError) as error:
            address = format_address(host, port)
            raise ConfigError(f"--engine-listen: can't listen on {address} for engines: {error}") from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def expect(self, engine_id: str, channel: Channel[Any], version: str) -> Expected:
        """Connect the engine of this id to a channel when it arrives; it needs the returned secret."""
        connected = asyncio.get_running_loop().create_future()
        credentials = Credentials(secrets.token_bytes(SECRET_BYTES), version)
        expected = Expected(credentials, channel, connected)
        self._expected[engine_id] = expected
        return expected

    def forget(self, engine_id: str) -> None:
        """Reject the engine of this id from now on."""
        self._expected.pop(engine_id, None)

    def close(self) -> None:
        """Stop listening, and end connections that have not authenticated themselves."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._pending):
            connection.abort()

    def credentials(self, engine_id: str) -> Credentials | None:
        """Return what is known of an engine that is expected; ``None`` for any other."""
        expected = self._expected.get(engine_id)
        return expected.credentials if expected else None

    def admit(self, connection: IncomingConnection) -> None:
        """Count a new connection; end the oldest one that has not authenticated itself if there are many."""
        if len(self._pending) >= MAX_PENDING:
            oldest = next(iter(self._pending))
            self.refused(oldest, "too many others wait")
            oldest.abort()
            self.leave(oldest)
        self._pending[connection] = None

    def leave(self, connection: IncomingConnection) -> None:
        """Count a connection no longer: it has authenticated itself, or ended."""
        self._pending.pop(connection, None)

    def refused(self, connection: IncomingConnection, reason: str) -> None:
        """Log that a connection is refused, now and then: others must not fill the log."""
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= LOG_INTERVAL:
            text = "connections to the port of engines refused: %d; the latest is from %s: %s"
            log.warning(text, self._refused, connection.address, reason)
            self._logged_at, self._refused = now, 0

    def arrived(self, connection: IncomingConnection, hello: Hello, keys: FrameKeys) -> None:
        """Connect an engine that has authenticated itself to its channel."""
        expected = self._expected.pop(hello.id)
        if expected.connected.done():  # nobody waits any longer
            connection.abort()
        elif hello.version != expected.credentials.version:
            connection.close()
            expected.connected.set_exception(
                ConfigError(
                    f"the engine {hello.id} at {connection.address} has furiosa-llm {hello.version}, and "
                    f"this server has {expected.credentials.version}: install the same version on both"
                )
            )
        else:
            expected.channel.secure(sending=keys.server, receiving=keys.engine)
            connection.hand_over(expected.channel)
            expected.connected.set_result(None)


class IncomingConnection(FrameProtocol):
    """A connection that has not authenticated itself."""

    max_frame_bytes = MAX_MESSAGE_BYTES

    def __init__(self, listener: EngineListener) -> None:
        super().__init__()
        self.address = "unknown"
        """Where it comes from, for logs."""
        self._listener = listener
        self._handshake = ServerHandshake(listener.credentials)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the challenge, after the handshake of TLS if there is one."""
        super().connection_made(transport)
        # The other end may be gone already.
        self.address = format_address(*(transport.get_extra_info("peername") or ("unknown", 0))[:2])
        detect_loss(transport.get_extra_info("socket"))
        self._listener.admit(self)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self._time_out)
        if self._listener.certificate is None:
            self.write_frame(self._handshake.challenge)
        else:
            self.transport.pause_reading()  # until TLS reads
            self._task = asyncio.create_task(self._start_tls(self._listener.certificate.context))

    def frame_received(self, frame: bytearray) -> None:
        """Read the answer to the challenge."""
        hello, answer, keys = self._handshake.accept(frame)
        self.write_frame(answer)
        self._end()
        self._listener.arrived(self, hello, keys)

    def refuse(self, error: FrameError) -> None:
        """Log why. The other end receives nothing."""
        self._listener.refused(self, error.message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Count it no longer."""
        self._end()

    def close(self) -> None:
        """Close the connection once what was written has been sent."""
        self.transport.close()

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self.transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )
        except OSError as error:
            self._listener.refused(self, f"TLS: {error}")
            self.abort()
            self._end()
            return
        if transport is None or transport.is_closing():
            return
        self._transport = transport
        self.write_frame(self._handshake.challenge)

    def _time_out(self) -> None:
        self._listener.refused(self, f"it has not authenticated itself within {HANDSHAKE_TIMEOUT:g} s")
        self.abort()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._listener.leave(self)
