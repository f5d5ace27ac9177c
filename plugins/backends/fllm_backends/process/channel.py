"""Messages over one end of a socket pair: msgpack, each behind its length."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from msgspec import msgpack

from fllm_backends.process.messages import Message

T = TypeVar("T")
HEADER = 4
"""Bytes of the length, big-endian."""


class Channel(asyncio.Protocol, Generic[T]):
    """Decodes and hands on what arrives; what is sent in one turn of the event loop leaves in one write."""

    def __init__(self, decode: Callable[[bytearray], T], receive: Callable[[T], None]) -> None:
        self.closed = asyncio.Event()
        """The other end is gone, or this one was closed; everything that had arrived has been handed on."""
        self._decode = decode
        self._encoder = msgpack.Encoder()
        self._receive = receive
        self._transport: asyncio.Transport | None = None
        self._arrived = bytearray()
        self._leaving: list[bytes] = []

    def send(self, message: Message) -> None:
        """Queue a message; after the end it is dropped, since nobody is there to read it."""
        body = self._encoder.encode(message)
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self.flush)
        self._leaving += (len(body).to_bytes(HEADER, "big"), body)

    def flush(self) -> None:
        """Write what is queued now."""
        data, self._leaving = b"".join(self._leaving), []
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """End the connection once what is queued is written."""
        self.flush()
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._arrived += data
        start = 0
        while (begin := start + HEADER) <= len(self._arrived):
            end = begin + int.from_bytes(self._arrived[start:begin], "big")
            if end > len(self._arrived):
                break
            self._receive(self._decode(self._arrived[begin:end]))
            start = end
        del self._arrived[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed.set()
