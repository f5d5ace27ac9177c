"""Exchange messages over a connection: each is a frame of msgpack."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct, msgpack

from fllm.engine_host.frames import HEADER_BYTES, TAG_BYTES, FrameError, FrameProtocol, FrameSeal

T = TypeVar("T")

MAX_FRAME_BYTES = 1 << 30
"""Default maximum size of a received message."""

log = logging.getLogger("fllm.engine")


class Channel(FrameProtocol, Generic[T]):
    """Sends and receives messages; all messages sent in one iteration of the event loop are one write."""

    def __init__(
        self,
        decode: Callable[[bytearray], T],
        receive: Callable[[T], None],
        max_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        super().__init__()
        self.closed = asyncio.Event()
        """Set when either end has closed and all received messages have been delivered."""
        self.failure: str | None = None
        """Why this end closed the connection, if the other end sent what it does not accept."""
        self.congested = False
        """Whether more waits to be written than the connection takes."""
        self.max_frame_bytes = max_bytes + TAG_BYTES
        self._decode = decode
        self._encoder = msgpack.Encoder()
        self._receive = receive
        self._outgoing: list[bytes] = []
        self._seals: tuple[FrameSeal, FrameSeal] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def secure(self, sending: bytes, receiving: bytes) -> None:
        """Authenticate all frames with these keys. Called before the connection is made."""
        self._seals = FrameSeal(sending), FrameSeal(receiving)

    def send(self, message: Struct) -> None:
        """Queue a message; it is dropped if the channel is closed."""
        body = self._encoder.encode(message)
        if self._seals is not None:
            body += self._seals[0].tag(body)
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self.flush)
        self._outgoing += (len(body).to_bytes(HEADER_BYTES, "big"), body)

    def flush(self) -> None:
        """Write all queued messages."""
        data, self._outgoing = b"".join(self._outgoing), []
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    async def writable(self) -> None:
        """Wait while the channel is congested; return at once if it is closed."""
        if self.congested:
            await self._writable.wait()

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        number: int = self.transport.get_extra_info("socket").fileno()
        return number

    def close(self) -> None:
        """Write all queued messages, then close the connection."""
        self.flush()
        if self._transport:
            self._transport.close()

    def frame_received(self, frame: bytearray) -> None:
        """Check, decode and deliver a message."""
        body = frame if self._seals is None else self._seals[1].open(frame)
        try:
            message = self._decode(body)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise FrameError(f"a message can't be decoded: {error}") from error
        self._receive(message)

    def refuse(self, error: FrameError) -> None:
        """Log one line."""
        self.failure = error.message
        log.error("the connection of an engine ends: %s", error)

    def pause_writing(self) -> None:
        """Record that the other end does not read as fast as this end writes."""
        self.congested = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """Record that the other end has caught up."""
        self.congested = False
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Record the end."""
        self.resume_writing()
        self.closed.set()
