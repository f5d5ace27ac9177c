"""Start a stream of server-sent events while its request waits for a model."""

from __future__ import annotations

from litestar.types import Message, Send

from fllm.serving import DATA_EVENTS, Framing

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class EarlyStream:
    """Sends the headers and comments of a response before the handler does.

    Once that has happened, the handler's own headers are left out. A response that is not a stream becomes
    one event.
    """

    def __init__(self, send: Send, framing: Framing = DATA_EVENTS) -> None:
        self.framing = framing
        self.started = False
        """Whether the headers are sent."""
        self._send = send
        self._wraps = False
        """Whether the handler's response is not a stream."""
        self._in_event = False

    async def write_comment(self, text: str) -> None:
        """Send a comment, which clients skip (WHATWG HTML, 9.2.6)."""
        if not self.started:
            self.started = True
            # A list of its own, to which the middlewares add the headers of this response.
            await self._send({"type": "http.response.start", "status": 200, "headers": [*HEADERS]})
        comment = f": {' '.join(text.split())}\n\n".encode()
        await self._send({"type": "http.response.body", "body": comment, "more_body": True})

    async def write_error(self, body: bytes) -> None:
        """End the stream with an event, whose data are the JSON of an error."""
        event = self.framing.error_prefix + body + b"\n\n" + self.framing.end
        await self._send({"type": "http.response.body", "body": event, "more_body": False})

    async def send(self, message: Message) -> None:
        """Send a message of the handler."""
        if not self.started:
            await self._send(message)
        elif message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            self._wraps = not any(kind.startswith(b"text/event-stream") for kind in kinds)
        elif message["type"] == "http.response.body" and self._wraps:
            body, more = message.get("body", b""), message.get("more_body", False)
            prefix = b"" if self._in_event else self.framing.error_prefix
            body = prefix + body + (b"" if more else b"\n\n" + self.framing.end)
            self._in_event = True
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        else:
            await self._send(message)
