"""Connect an engine to its server."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from fllm.engine_host.addresses import detect_loss, format_address
from fllm.engine_host.channel import Channel
from fllm.engine_host.frames import FrameError, FrameProtocol
from fllm.engine_host.handshake import MAX_MESSAGE_BYTES, EngineHandshake
from fllm.engine_host.ticket import Ticket
from fllm.engine_host.tls import engine_context, has_fingerprint
from fllm.errors import BackendUnavailable, ConfigError

DIAL_TIMEOUT = 30.0
"""Seconds in which an engine tries to connect again if that fails."""
ATTEMPT_TIMEOUT = 10.0
"""Seconds of one attempt."""
RETRY_DELAY = 0.5
"""Seconds between two attempts."""


async def dial(ticket: Ticket, channel: Channel[Any], version: str) -> None:
    """Connect a channel to the server of a ticket. Both prove that they know the secret.

    Raise `BackendUnavailable` if the server can't be reached or does not expect this engine, `ConfigError` if
    it is another server or has another version.
    """
    address = format_address(ticket.host, ticket.port)
    error: Exception = TimeoutError()
    try:
        async with asyncio.timeout(DIAL_TIMEOUT):
            while True:
                try:
                    async with asyncio.timeout(ATTEMPT_TIMEOUT):
                        return await _attempt(ticket, channel, version)
                except (OSError, TimeoutError) as failed:
                    error = failed
                await asyncio.sleep(RETRY_DELAY)
    except TimeoutError:
        reason = str(error) or "it does not respond"
        raise BackendUnavailable(f"can't connect to the server at {address}: {reason}") from error
    except FrameError as refused:
        raise ConfigError(f"the server at {address} is refused: {refused}") from refused


async def _attempt(ticket: Ticket, channel: Channel[Any], version: str) -> None:
    dialing = _Dialing(ticket, channel, version)
    context = None if ticket.fingerprint is None else engine_context()
    loop = asyncio.get_running_loop()
    await loop.create_connection(
        lambda: dialing, ticket.host, ticket.port, ssl=context, server_hostname="" if context else None
    )
    try:
        await dialing.done
    except BaseException:
        dialing.abort()
        raise


class _Dialing(FrameProtocol):
    """A connection until both ends are authenticated."""

    max_frame_bytes = MAX_MESSAGE_BYTES

    def __init__(self, ticket: Ticket, channel: Channel[Any], version: str) -> None:
        super().__init__()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fingerprint = ticket.fingerprint
        self._channel = channel
        self._version = version
        self._handshake = EngineHandshake(ticket.secret, ticket.id, version)
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check the certificate before anything is sent."""
        super().connection_made(transport)
        detect_loss(transport.get_extra_info("socket"))
        connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if self._fingerprint is None:
            return
        if connection is None or not has_fingerprint(connection, self._fingerprint):
            self.refuse(FrameError("its certificate is another one"))
            self.abort()

    def frame_received(self, frame: bytearray) -> None:
        """Send the answer to the challenge, then check what the server answers."""
        if self.done.done():
            return
        if not self._answered:
            self._answered = True
            self.write_frame(self._handshake.answer(frame))
            return
        welcome, keys = self._handshake.accept(frame)
        if welcome.version != self._version:
            raise FrameError(
                f"it has furiosa-llm {welcome.version}, and this machine {self._version}: install the same"
            )
        self._channel.secure(sending=keys.engine, receiving=keys.server)
        self.hand_over(self._channel)
        self.done.set_result(None)

    def refuse(self, error: FrameError) -> None:
        """End the attempt with this error."""
        if not self.done.done():
            self.done.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the attempt with an error, after which another may follow."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("it has closed the connection"))
