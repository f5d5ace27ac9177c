"""HTTP/1.1 as cheaply as it can be had: a piece of a body is handed on in the very call that received it.

A load generator shares its machine with the server that it measures. A streamed chunk that comes alone
costs it 13 µs here, on uvloop, with reading the answer; httpx takes 80.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit

import httptools

Receive = Callable[[bytes], None]


class Refused(Exception):
    """Another status than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


class Pool:
    """The connections to one server: as many as there are requests at once, each used again and again."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._address = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._path = parts.path
        fields = {"Host": parts.netloc.rpartition("@")[2], **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._idle: list[_Connection] = []

    async def get(self, path: str, receive: Receive) -> None:
        """Fetch a page; raises as `post` does."""
        await self._send(f"GET {self._path}{path} HTTP/1.1\r\n{self._head}\r\n".encode(), receive)

    async def post(self, path: str, body: bytes, receive: Receive) -> None:
        """Send JSON; ``receive`` gets each piece of the answer. Raises `Refused`, or `OSError`."""
        head = (
            f"POST {self._path}{path} HTTP/1.1\r\n{self._head}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await self._send(head.encode() + body, receive)

    def close(self) -> None:
        """Close what is open."""
        while self._idle:
            self._idle.pop().close()

    async def _send(self, request: bytes, receive: Receive) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                # Servers close an idle connection, some just when it is taken up again.
                with suppress(_Unanswered):
                    return await self._exchange(connection, request, receive)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, *self._address, ssl=self._tls)
        return await self._exchange(connection, request, receive)

    async def _exchange(self, connection: _Connection, request: bytes, receive: Receive) -> None:
        try:
            await connection.exchange(request, receive)
        finally:
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()


class _Unanswered(ConnectionError):
    """Not a byte came."""


class _Connection(asyncio.Protocol):
    """Carries one exchange at a time."""

    def __init__(self) -> None:
        self.reusable = self._begun = False
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[None] | None = None

    async def exchange(self, request: bytes, receive: Receive) -> None:
        self.reusable = self._begun = False
        if self._transport.is_closing():
            raise _Unanswered("the connection was closed before the request")
        self._receive = receive
        self._refusal = bytearray()
        self._ends_with_connection = False
        self._parser = httptools.HttpResponseParser(self)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._done
        status = self._parser.get_status_code()
        if status != 200:
            raise Refused(status, bytes(self._refusal))

    def close(self) -> None:
        self._transport.close()

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ConnectionError(f"what came is not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if not self._begun:
            self._end(_Unanswered("the connection was closed without an answer"))
        elif exc is None and not self._ends_with_connection:
            self._end(ConnectionError("the connection was closed before the answer's end"))
        else:
            self._end(exc)

    # httptools calls these.

    def on_message_begin(self) -> None:
        self._begun, self._sized = True, False

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002
        self._sized |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._ends_with_connection = not self._sized
        if self._parser.get_status_code() != 200:
            self._receive = self._refusal.extend

    def on_body(self, body: bytes) -> None:
        self._receive(body)

    def on_message_complete(self) -> None:
        self.reusable = self._parser.should_keep_alive()
        self._end()

    def _end(self, error: Exception | None = None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
