"""One connection: uvicorn's, with limits of time and size, and errors in the envelope.

What costs anything runs once a request, or where a client makes the server wait: nothing runs once a token.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Any

import httptools
from msgspec import Struct
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fllm_api.listener.connection_limit import Crowd
from fllm_api.listener.rejection import Refusal
from fllm_api.listener.request_framing import check_framing, without_upgrade
from fllm_api.listener.timer import Alarm
from fllm_api.request_id import request_id

MAX_HEAD = 64 * 1024
"""Bytes of a request line, and of all headers."""
MAX_HEADERS = 256
MAX_PIPELINED = 16
"""Requests that a client may send ahead of its answers."""
FRAMING = 8
"""Bytes of chunk sizes, extensions and trailers for each byte of the body; chunks of one byte need 5."""
SLOWEST = 1024
"""Bytes a second that a reader takes at least, to be slow rather than gone."""
LINGER_SECONDS = 2.0
"""A connection closed at once, with unread data, takes the answer with it (RFC 9112, 9.6)."""

log = logging.getLogger("fllm.http")


class ConnectionTimeouts(Struct, frozen=True, kw_only=True):
    """Seconds for a client to send a request's headers and its body, and to read; 0: no limit."""

    read: float
    write: float


class Phase(Enum):
    """Which part of a request comes next."""

    NONE = "request"
    HEAD = "headers"
    BODY = "body"


class Protocol(HttpToolsProtocol):
    """Reads requests and writes answers, as long as its client does its part."""

    parser: httptools.HttpRequestParser

    def __init__(self, *arguments: Any, limits: ConnectionTimeouts, crowd: Crowd, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._crowd = crowd
        self._reading = Alarm(self.loop, limits.read, self._too_slow)
        self._writing = Alarm(self.loop, limits.write, self._stuck)
        self._phase = Phase.NONE
        self._messages = 0
        self._awaited: tuple[int, Phase] | None = None
        self._head = self._arrived = self._carried = 0
        self._again = b""
        self._unread = 0
        self._current: RequestResponseCycle | None = None
        self._refusal: Refusal | None = None
        self._refused = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._crowd.enter(self):
            self._watch()
        else:
            self._refuse(Refusal(503, "the server has too many connections", [(b"retry-after", b"1")]))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._crowd.leave(self)
        for alarm in (self._reading, self._writing):
            alarm.clear()
        self._unset_keepalive_if_required()
        self._leave(self._current)

    def close(self) -> None:
        """End it once everything is written."""
        self.transport.close()
        self._watch_the_rest()

    def abort(self) -> None:
        """End it now."""
        self.transport.abort()

    @property
    def at_work(self) -> bool:
        """Whether an answer is not complete."""
        return self._current is not None and not self._current.response_complete

    def finish(self) -> None:
        """Take no further request once the present one is answered."""
        if self._current is not None:
            self._current.keep_alive = False

    # Reading

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        before = (self._messages, self._phase)
        try:
            self._feed(data)
            if (self._messages, self._phase) == before:
                self._count(len(data))
        except Refusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            self._refuse(_refusal_of(error))
        else:
            self._watch()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data, self._again = self._again + data[upgrade.args[0] :], b""
            else:
                return

    def _count(self, size: int) -> None:
        """What the parser swallows without a word is not without limit either."""
        self._arrived += size
        if self._phase is Phase.HEAD and self._arrived > MAX_HEAD:
            raise Refusal(431, f"the headers are longer than {MAX_HEAD} bytes")
        if self._phase is Phase.BODY and self._arrived > MAX_HEAD + FRAMING * self._carried:
            raise Refusal(400, "the body has more framing than content")

    def _watch(self) -> None:
        """Wait no longer than allowed for what is missing; a request in one piece sets no alarm."""
        waiting = self._phase is not Phase.NONE or not self.at_work
        awaited = (self._messages, self._phase) if waiting else None
        if awaited != self._awaited:
            self._awaited = awaited
            self._reading.set() if waiting else self._reading.clear()

    def _too_slow(self) -> None:
        if self.flow.read_paused:  # it is we who are slow
            self._reading.set()
        elif self._phase is Phase.NONE:
            self.close()
        else:
            seconds = self._reading.seconds
            self._refuse(Refusal(408, f"the {self._phase.value} took longer than {seconds:g} s"))

    # What the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._messages += 1
        self._phase = Phase.HEAD
        self._head = self._arrived = self._carried = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_HEAD:
            raise Refusal(414, f"the request line is longer than {MAX_HEAD} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not Phase.HEAD:
            return  # a trailer, which may not pass for a header
        self._head += len(name) + len(value) + len(": \r\n")
        if self._head > MAX_HEAD or len(self.headers) >= MAX_HEADERS:
            raise Refusal(431, f"the headers are more than {MAX_HEADERS}, or {MAX_HEAD} bytes")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        check_framing(self.parser.get_http_version(), self.parser.get_method(), self.url, self.headers)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Refusal(400, f"more than {MAX_PIPELINED} requests are sent ahead of their answers")
        if self.parser.should_upgrade():
            self._again = without_upgrade(self.parser, self.url, self.headers)
            return
        super().on_headers_complete()
        self._crowd.works(self)
        self._phase = Phase.BODY
        self._arrived = 0
        if self.expect_100_continue:
            # Where the answer comes before the body, nobody knows whether the body comes still.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._carried += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._again:
            super().on_message_complete()
        self._phase = Phase.NONE

    # Answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        more = bool(self.pipeline)
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_the_rest()
        elif self._refusal is not None and not more:
            self._say(self._refusal)
        elif not more:
            self._crowd.waits(self)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request, behind the answers to those before it; then close."""
        self._refused = True
        self._crowd.leave(self)
        self._reading.clear()
        if self._phase is Phase.BODY:
            self._withdraw(self.cycle)
        if self.transport.is_closing():
            return
        if self.at_work or self.pipeline:
            self._refusal = refusal
        else:
            self._say(refusal)

    def _withdraw(self, cycle: RequestResponseCycle) -> None:
        """The request whose body will not come is answered by the refusal, unless it has an answer."""
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
        elif cycle.response_complete:
            self.close()
        elif cycle.response_started:
            self.abort()
        else:
            self._leave(cycle)
            self._current = None

    def _leave(self, cycle: RequestResponseCycle | None) -> None:
        """Tell the application that nobody listens."""
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _say(self, refusal: Refusal) -> None:
        self._unset_keepalive_if_required()
        scope = {"headers": self.headers or [], "state": {}}
        identity = request_id(scope)  # type: ignore[arg-type]
        about = {"request_id": identity}
        log.info("%s: refused with %d: %s", _name(self.client), refusal.status, refusal, extra=about)
        self.transport.write(refusal.encode(identity, self.server_state.default_headers))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    # Writing

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_the_rest()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writing.clear()

    def _watch_the_rest(self) -> None:
        """What is left to be written has to get on."""
        self._unread = self.transport.get_write_buffer_size()
        if self._unread:
            self._writing.set()

    def _stuck(self) -> None:
        """The time is over: go on with a reader that is only slow, abort what one asked for that is gone."""
        seconds = self._writing.seconds
        if self._unread - self.transport.get_write_buffer_size() >= SLOWEST * seconds:
            return self._watch_the_rest()
        about = {"request_id": request_id(self._current.scope)} if self._current else None  # type: ignore[arg-type]
        log.warning("%s: aborted: its client read nothing for %g s", _name(self.client), seconds, extra=about)
        return self.abort()


def _refusal_of(error: httptools.HttpParserError) -> Refusal:
    """What the parser refused, or one of our callbacks, whose error is this one's context."""
    cause = error.__context__ or error
    if isinstance(cause, Refusal):
        return cause
    if isinstance(cause, httptools.HttpParserError):
        return Refusal(400, f"this is not valid HTTP/1.1: {cause}")
    log.error("a request could not be read", exc_info=cause)
    return Refusal(500, "the server failed to read the request; its log says why")


def _name(client: tuple[str, int] | None) -> str:
    return f"{client[0]}:{client[1]}" if client else "a client"
