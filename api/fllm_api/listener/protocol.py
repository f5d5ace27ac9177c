"""One connection: uvicorn's HTTP protocol with limits of time and size, and errors in OpenAI's envelope.

The added code runs once per request, or while a client makes the server wait. None of it runs once per token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import Any

import httptools
from msgspec import Struct
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fllm_api.limits.body_memory import SMALL_BODY
from fllm_api.listener.connection_limit import ConnectionLimit
from fllm_api.listener.rejection import RequestRejected
from fllm_api.listener.request_framing import check_framing, without_upgrade
from fllm_api.listener.timer import Timer
from fllm_api.request_context import choose_request_id, context_of
from fllm_api.trusted_proxies import UNIX, TrustedProxies, peer_address

MAX_HEADER_BYTES = 64 * 1024
"""Maximum size of a request line, and of all headers."""
MAX_HEADERS = 256
MAX_PIPELINED = 16
"""Maximum number of requests that a client may send before it has received the responses."""
MAX_FRAMING_RATIO = 8
"""Maximum bytes of chunk sizes, extensions and trailers per byte of the body; chunks of one byte need 5."""
MIN_READ_RATE = 1024
"""Bytes per second that a client must read, to count as slow and not as gone."""
LINGER_SECONDS = 2.0
"""Time until a rejected connection is aborted. Closing it at once, with unread data, would discard the
response (RFC 9112, 9.6)."""

log = logging.getLogger("fllm.http")


class ConnectionTimeouts(Struct, frozen=True, kw_only=True):
    """Seconds for reading a request's headers and its body, and for writing to a client; 0 means no limit."""

    read: float
    write: float


class Phase(Enum):
    """The part of a request that is expected next."""

    NONE = "request"
    HEAD = "headers"
    BODY = "body"


class ReadFlowControl(FlowControl):
    """Flow control that reports when the application reads a body that was held back."""

    def __init__(self, transport: asyncio.Transport, on_read: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_read = on_read
        self.held = False
        """Whether the client waits until the application reads its body."""

    def hold(self) -> None:
        """Read nothing more until the application does."""
        self.held = True
        self.pause_reading()

    def resume_reading(self) -> None:
        super().resume_reading()
        if self.held:
            self.held = False
            self._on_read()


class HttpProtocol(HttpToolsProtocol):
    """Reads requests and writes responses, and enforces the limits of a connection."""

    parser: httptools.HttpRequestParser

    def __init__(
        self,
        *args: Any,
        timeouts: ConnectionTimeouts,
        connection_limit: ConnectionLimit,
        trusted_proxies: TrustedProxies,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._connection_limit = connection_limit
        self._trusted_proxies = trusted_proxies
        self._read_timer = Timer(self.loop, timeouts.read, self._on_read_timeout)
        self._write_timer = Timer(self.loop, timeouts.write, self._on_write_timeout)
        self._peer = (UNIX, 0)
        """Address and port of the connection's peer."""
        self._phase = Phase.NONE
        self._messages = 0
        """Number of requests begun."""
        self._awaited: tuple[int, Phase] | None = None
        """Request and phase that the read timer is running for."""
        self._header_bytes = 0
        self._phase_bytes = 0
        """Bytes received in the present phase, framing included."""
        self._body_bytes = 0
        self._replay = b""
        """Head of a request without its upgrade, to be parsed again."""
        self._unsent_bytes = 0
        """Size of the write buffer when the write timer was started."""
        self._current: RequestResponseCycle | None = None
        self._rejection: RequestRejected | None = None
        """The rejection to send after the responses to earlier requests."""
        self._rejected = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = (peer_address(self.client), self.client[1] if self.client else 0)
        self.flow = self._reading = ReadFlowControl(transport, self._on_body_read)
        if self._connection_limit.add(self):
            self._update_read_timer()
        else:
            self._reject(
                RequestRejected(503, "the server has too many connections", [(b"retry-after", b"1")])
            )

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection_limit.remove(self)
        for timer in (self._read_timer, self._write_timer):
            timer.stop()
        self._unset_keepalive_if_required()
        self._disconnect(self._current)

    def close(self) -> None:
        """Close the connection once everything is written."""
        self.transport.close()
        self._start_write_timer()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    @property
    def is_busy(self) -> bool:
        """Whether a response is incomplete."""
        return self._current is not None and not self._current.response_complete

    def finish(self) -> None:
        """Accept no further request after the present one."""
        if self._current is not None:
            self._current.keep_alive = False

    # Reading

    def data_received(self, data: bytes) -> None:
        if self._rejected:
            return
        self._unset_keepalive_if_required()
        before = (self._messages, self._phase)
        try:
            self._feed(data)
            if (self._messages, self._phase) == before:
                self._check_size(len(data))
        except RequestRejected as rejection:
            self._reject(rejection)
        except httptools.HttpParserError as error:
            self._reject(_rejection_for(error))
        else:
            self._update_read_timer()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data, self._replay = self._replay + data[upgrade.args[0] :], b""
            else:
                return

    def _check_size(self, size: int) -> None:
        """Limit the data that the parser consumes without a callback."""
        self._phase_bytes += size
        if self._phase is Phase.HEAD and self._phase_bytes > MAX_HEADER_BYTES:
            raise RequestRejected(431, f"the headers are longer than {MAX_HEADER_BYTES} bytes")
        max_body_phase = MAX_HEADER_BYTES + MAX_FRAMING_RATIO * self._body_bytes
        if self._phase is Phase.BODY and self._phase_bytes > max_body_phase:
            raise RequestRejected(400, "the body has more framing than content")

    def _update_read_timer(self) -> None:
        """Restart the read timer when another part is expected; a request in one piece never starts it."""
        waiting = self._phase is not Phase.NONE or not self.is_busy
        awaited = (self._messages, self._phase) if waiting else None
        if awaited != self._awaited:
            self._awaited = awaited
            # A client that is held back can't be late. The timer starts when its body is read.
            self._read_timer.restart() if waiting and not self._reading.held else self._read_timer.stop()

    def _on_body_read(self) -> None:
        """Start the read timer, unless the whole body has arrived with the headers."""
        if self._awaited is not None:
            self._read_timer.restart()

    def _on_read_timeout(self) -> None:
        if self.flow.read_paused:  # the server itself is slow
            self._read_timer.restart()
        elif self._phase is Phase.NONE:
            self.close()
        else:
            seconds = self._read_timer.seconds
            self._reject(RequestRejected(408, f"the {self._phase.value} took longer than {seconds:g} s"))

    # Parser callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._messages += 1
        self._phase = Phase.HEAD
        self._header_bytes = self._phase_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_HEADER_BYTES:
            raise RequestRejected(414, f"the request line is longer than {MAX_HEADER_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not Phase.HEAD:
            return  # a trailer, which must not be treated as a header
        self._header_bytes += len(name) + len(value) + len(": \r\n")
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADERS:
            raise RequestRejected(
                431, f"there are more than {MAX_HEADERS} headers, or {MAX_HEADER_BYTES} bytes of them"
            )
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        length = check_framing(
            self.parser.get_http_version(), self.parser.get_method(), self.url, self.headers
        )
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RequestRejected(400, f"more than {MAX_PIPELINED} pipelined requests wait for a response")
        if self.parser.should_upgrade():
            self._replay = without_upgrade(self.parser, self.url, self.headers)
            return
        self.scope["client"] = self._client()
        super().on_headers_complete()
        self._connection_limit.mark_busy(self)
        self._phase = Phase.BODY
        self._phase_bytes = 0
        if length > SMALL_BODY and not self.cycle.response_complete:
            self._reading.hold()
        if self.expect_100_continue:
            # If the response precedes the body, it is unknown whether the client still sends the body.
            self.cycle.keep_alive = False

    def _client(self) -> tuple[str, int]:
        """Return the address of the request's client; its port is unknown if a proxy named the address."""
        peer, port = self._peer
        address = self._trusted_proxies.client(peer, self.headers)
        return (address, port if address == peer else 0)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._replay:
            super().on_message_complete()
        self._phase = Phase.NONE

    # Responses

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        old = cycle.scope["http_version"] == "1.0"
        super()._start_asgi_task(cycle, _ending_with_connection(cycle, app) if old else app)

    def on_response_complete(self) -> None:
        has_next = bool(self.pipeline)
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_write_timer()
        elif self._rejection is not None and not has_next:
            self._send_rejection(self._rejection)
        elif not has_next:
            self._connection_limit.mark_idle(self)

    def _reject(self, rejection: RequestRejected) -> None:
        """Stop reading; send the rejection after the responses to earlier requests, then close."""
        self._rejected = True
        self._read_timer.stop()
        if self._phase is Phase.BODY:
            self._withdraw(self.cycle)
        if self.transport.is_closing():
            self._connection_limit.remove(self)
        elif self.is_busy or self.pipeline:
            self._rejection = rejection
        else:
            self._send_rejection(rejection)

    def _withdraw(self, cycle: RequestResponseCycle) -> None:
        """Cancel the request whose body is incomplete; the rejection replaces its response if possible."""
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
        elif cycle.response_complete:
            self.close()
        elif cycle.response_started:
            self.abort()
        else:
            self._disconnect(cycle)
            self._current = None

    def _disconnect(self, cycle: RequestResponseCycle | None) -> None:
        """Notify the application that the client has disconnected."""
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _send_rejection(self, rejection: RequestRejected) -> None:
        self._unset_keepalive_if_required()
        self._connection_limit.mark_rejected(self)
        request_id = choose_request_id(self.headers or ())
        extra = {"request_id": request_id}
        log.info(
            "request rejected: %s: %d: %s", _address(self._peer), rejection.status, rejection, extra=extra
        )
        self.transport.write(rejection.encode(request_id, self.server_state.default_headers))
        if self.transport.can_write_eof():  # TLS has no such thing; the response has a length
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    # Writing

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_timer.stop()

    def _start_write_timer(self) -> None:
        """Limit the time for sending the data that is still in the write buffer."""
        self._unsent_bytes = self.transport.get_write_buffer_size()
        if self._unsent_bytes:
            self._write_timer.restart()

    def _on_write_timeout(self) -> None:
        """Keep the connection if the client still reads at least `MIN_READ_RATE`, else abort the request."""
        seconds = self._write_timer.seconds
        if self._unsent_bytes - self.transport.get_write_buffer_size() >= MIN_READ_RATE * seconds:
            return self._start_write_timer()
        request_id = context_of(self._current.scope).request_id if self._current else None  # type: ignore[arg-type]
        log.warning(
            "request aborted: %s: the client read nothing for %g s",
            _address(self._peer),
            seconds,
            extra={"request_id": request_id} if request_id else None,
        )
        return self.abort()


def _ending_with_connection(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """Return the application for a client of HTTP/1.0, which knows no chunks.

    The end of a body without a length is the end of the connection (RFC 9112, 6.3), which uvicorn closes.
    """

    has_length = True

    async def run(scope: Any, receive: Any, send: Any) -> None:
        async def send_plain(message: Any) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
                if not has_length:
                    cycle.chunked_encoding = False
            elif not has_length:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_plain)

    return run


def _rejection_for(error: httptools.HttpParserError) -> RequestRejected:
    """Return the rejection that a callback raised (the error's context), or one for the error itself."""
    cause = error.__context__ or error
    if isinstance(cause, RequestRejected):
        return cause
    if isinstance(cause, httptools.HttpParserError):
        return RequestRejected(400, f"this is not valid HTTP/1.1: {cause}")
    log.error("failed to read a request", exc_info=cause)
    return RequestRejected(500, "the server failed to read the request; see its log")


def _address(client: tuple[str, int]) -> str:
    return f"{client[0]}:{client[1]}"
