"""Exchange messages over a socket pair: each is msgpack after a length header."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from msgspec import msgpack

from fllm_backends.process.messages import Message

T = TypeVar("T")
HEADER_BYTES = 4
"""Size of the length header, which is big-endian."""


class Channel(asyncio.Protocol, Generic[T]):
    """Sends and receives messages; all messages sent in one iteration of the event loop are one write."""

    def __init__(self, decode: Callable[[bytearray], T], receive: Callable[[T], None]) -> None:
        self.closed = asyncio.Event()
        """Set when either end has closed and all received messages have been delivered."""
        self._decode = decode
        self._encoder = msgpack.Encoder()
        self._receive = receive
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._outgoing: list[bytes] = []

    def send(self, message: Message) -> None:
        """Queue a message; it is dropped if the channel is closed."""
        body = self._encoder.encode(message)
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self.flush)
        self._outgoing += (len(body).to_bytes(HEADER_BYTES, "big"), body)

    def flush(self) -> None:
        """Write all queued messages."""
        data, self._outgoing = b"".join(self._outgoing), []
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Write all queued messages, then close the connection."""
        self.flush()
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._received += data
        start = 0
        while (begin := start + HEADER_BYTES) <= len(self._received):
            end = begin + int.from_bytes(self._received[start:begin], "big")
            if end > len(self._received):
                break
            self._receive(self._decode(self._received[begin:end]))
            start = end
        del self._received[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed.set()
