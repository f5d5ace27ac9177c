"""Write a stream of server-sent events, with comments while there is nothing else to send."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from litestar.types import Send

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients skip (WHATWG HTML, 9.2.6)."""
WRITE_BYTES = 256 * 1024
"""Maximum size of one write."""


class EventStream:
    """Sends events, and a comment whenever nothing was sent for an interval, so that no proxy gives up.

    The headers precede the first event or comment. Until then, the response can still be an error.
    """

    def __init__(self, send: Send, start: Callable[[Send], Awaitable[None]], keep_alive: float) -> None:
        """Create a stream with a comment after ``keep_alive`` seconds of silence; 0 means no comments."""
        self.started = False
        """Whether the headers are sent, or are being sent."""
        self._send = send
        self._start = start
        self._keep_alive = keep_alive
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None
        """The write of a comment. The next write waits for it."""

    async def __aenter__(self) -> Self:
        if self._keep_alive:
            self._schedule()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._comment is not None:
            self._comment.cancel()
            await asyncio.gather(self._comment, return_exceptions=True)

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the stream; the last one ends it."""
        self._writing = True
        if self._comment is not None:
            await self._comment
        if not self.started:
            await self._send_headers()
        await write_body(self._send, body, more=more)
        self._sent_at = self._loop.time()
        self._writing = False

    async def _write_comment(self) -> None:
        if not self.started:
            await self._send_headers()
        await write_body(self._send, KEEP_ALIVE)
        self._sent_at = self._loop.time()
        self._comment = None

    async def _send_headers(self) -> None:
        self.started = True
        await self._start(self._send)

    def _schedule(self) -> None:
        self._timer = self._loop.call_at(self._sent_at + self._keep_alive, self._on_timer)

    def _on_timer(self) -> None:
        if self._loop.time() < self._sent_at + self._keep_alive:
            return self._schedule()
        if not self._writing and self._comment is None:
            self._comment = self._loop.create_task(self._write_comment())
        self._timer = self._loop.call_later(self._keep_alive, self._on_timer)
        return None


async def write_body(send: Send, body: bytes, *, more: bool = True) -> None:
    """Send a part of the body. A large one is divided, so that no more is buffered than the client reads."""
    sent = 0
    while len(body) - sent > WRITE_BYTES:
        part = body[sent : sent + WRITE_BYTES]
        await send({"type": "http.response.body", "body": part, "more_body": True})
        sent += WRITE_BYTES
    await send({"type": "http.response.body", "body": body[sent:], "more_body": more})
