"""The port to which engines connect. It accepts those that the server has started, and nobody else."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from functools import partial
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
ACCEPT_DELAY = 1.0
"""Seconds until the next attempt if a connection can't be accepted."""
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
        self._pending: dict[asyncio.Task[None], None] = {}
        """Connections that have not authenticated themselves, the oldest first."""
        self._socket: socket.socket | None = None
        self._refused = 0
        self._logged_at = -LOG_INTERVAL

    async def listen(self, host: str, port: int) -> int:
        """Listen; return the port, which is a free one if ``port`` is 0. Raise `ConfigError` if it can't."""
        loop = asyncio.get_running_loop()
        try:
            family, *_, address = (await loop.getaddrinfo(host or None, port, flags=socket.AI_PASSIVE))[0]
            self._socket = socket.create_server(address[:2], family=family, backlog=MAX_PENDING)
        except (OSError, UnicodeError) as error:
            reason = f"can't listen on {format_address(host, port)} for engines: {error}"
            raise ConfigError(f"--engine-listen: {reason}") from error
        self._socket.setblocking(False)
        loop.add_reader(self._socket, self._accept, self._socket)
        bound: int = self._socket.getsockname()[1]
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

    async def close(self) -> None:
        """Stop listening, and end connections that have not authenticated themselves."""
        listening, self._socket = self._socket, None
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        await asyncio.sleep(0)  # lets tasks start: each closes its own connection
        for task in (pending := list(self._pending)):
            task.cancel()
        if pending:
            await asyncio.wait(pending)

    def _accept(self, listening: socket.socket) -> None:
        """Accept a connection. The oldest that has not authenticated itself ends for it if there are many."""
        try:
            connection, address = listening.accept()
        except BlockingIOError:  # it is gone already
            return
        except OSError as error:  # too many open files, for example
            log.warning("a connection to the port of engines can't be accepted: %s", error)
            self._pause(listening)
            return
        connection.setblocking(False)
        source = format_address(*address[:2])
        if len(self._pending) >= MAX_PENDING:
            next(iter(self._pending)).cancel()
            self._log_refusal(source, f"the oldest of {MAX_PENDING} that wait ends for it")
        task = asyncio.get_running_loop().create_task(self._authenticate(connection, source))
        self._pending[task] = None
        task.add_done_callback(self._pending.pop)

    def _pause(self, listening: socket.socket) -> None:
        """Accept nothing for a moment."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)

        def accept_again() -> None:
            if listening.fileno() >= 0:
                loop.add_reader(listening, self._accept, listening)

        loop.call_later(ACCEPT_DELAY, accept_again)

    async def _authenticate(self, connection: socket.socket, address: str) -> None:
        """Connect an engine that authenticates itself to its channel; close any other connection."""
        incoming = IncomingConnection(self._credentials, partial(self._arrived, address))
        context = self.certificate.context if self.certificate else None
        try:
            detect_loss(connection)
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: incoming, connection, ssl=context
                )
                await incoming.done
        except TimeoutError:
            self._log_refusal(address, f"it has not authenticated itself within {HANDSHAKE_TIMEOUT:g} s")
        except (OSError, FrameError) as error:
            self._log_refusal(address, str(error))
        finally:
            incoming.end()

    def _arrived(self, address: str, incoming: IncomingConnection, hello: Hello, keys: FrameKeys) -> None:
        """Connect an engine that has authenticated itself to its channel."""
        expected = self._expected.pop(hello.id)
        if expected.connected.done():  # nobody waits any longer
            incoming.abort()
        elif hello.version != expected.credentials.version:
            incoming.transport.close()
            expected.connected.set_exception(
                ConfigError(
                    f"the engine {hello.id} at {address} has furiosa-llm {hello.version}, and this server "
                    f"has {expected.credentials.version}: install the same version on both"
                )
            )
        else:
            expected.channel.secure(sending=keys.server, receiving=keys.engine)
            incoming.hand_over(expected.channel)
            expected.connected.set_result(None)

    def _credentials(self, engine_id: str) -> Credentials | None:
        expected = self._expected.get(engine_id)
        return expected.credentials if expected else None

    def _log_refusal(self, address: str, reason: str) -> None:
        """Log that a connection is refused, now and then: others must not fill the log."""
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= LOG_INTERVAL:
            text = "connections to the port of engines refused: %d; the latest is from %s: %s"
            log.warning(text, self._refused, address, reason)
            self._logged_at, self._refused = now, 0


class IncomingConnection(FrameProtocol):
    """A connection that has not authenticated itself."""

    max_frame_bytes = MAX_MESSAGE_BYTES

    def __init__(
        self,
        find: Callable[[str], Credentials | None],
        arrived: Callable[[IncomingConnection, Hello, FrameKeys], None],
    ) -> None:
        super().__init__()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection has authenticated itself; fails if it has not."""
        self._handshake = ServerHandshake(find)
        self._arrived = arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the challenge."""
        super().connection_made(transport)
        self.write_frame(self._handshake.challenge)

    def frame_received(self, frame: bytearray) -> None:
        """Read the answer to the challenge."""
        hello, answer, keys = self._handshake.accept(frame)
        self.write_frame(answer)
        self._arrived(self, hello, keys)
        if not self.done.done():
            self.done.set_result(None)

    def refuse(self, error: FrameError) -> None:
        """Fail. The other end receives nothing."""
        self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail, unless it has authenticated itself."""
        self._fail(exc or ConnectionResetError("it has closed the connection"))

    def end(self) -> None:
        """Close the connection at once, unless it has authenticated itself."""
        self.done.cancel()
        if self.done.cancelled() or self.done.exception() is not None:
            self.abort()

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # the listener may have stopped waiting
