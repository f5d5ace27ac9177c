"""Send requests to an ASGI application in this process, also as a client that leaves."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

Message = MutableMapping[str, Any]
AsgiApp = Callable[..., Awaitable[None]]
"""An application of ASGI 3.0: called with the scope, ``receive`` and ``send``."""


class ServerSentEvent(Struct, frozen=True):
    """One event of a stream, without comments."""

    data: str
    name: str = ""
    """The ``event:`` line, if there is one."""

    def json(self) -> Any:
        """Return the data, decoded."""
        return json.loads(self.data)


class Response(Struct, frozen=True, kw_only=True):
    """The response to one request; what had been sent before the client left, if it did."""

    status: int
    headers: Mapping[str, str]
    """Names are in lower case."""
    parts: Sequence[bytes] = ()
    """The body, as it was sent."""

    @property
    def content(self) -> bytes:
        """The whole body."""
        return b"".join(self.parts)

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.content)

    def lines(self) -> list[Any]:
        """Return the lines of a body of JSON lines, decoded."""
        return [json.loads(line) for line in self.content.splitlines()]

    def events(self) -> list[ServerSentEvent]:
        """Return the server-sent events of the body (WHATWG HTML 9.2)."""
        found: list[ServerSentEvent] = []
        for block in self.content.decode().replace("\r\n", "\n").split("\n\n"):
            fields = [line.partition(":")[::2] for line in block.split("\n") if line and line[0] != ":"]
            data = [value.removeprefix(" ") for name, value in fields if name == "data"]
            names = [value.removeprefix(" ") for name, value in fields if name == "event"]
            if data:
                found.append(ServerSentEvent("\n".join(data), names[-1] if names else ""))
        return found


async def send(
    app: AsgiApp,
    method: str,
    url: str,
    *,
    content: bytes = b"",
    headers: Mapping[str, str] = {},
    leave_after: float = math.inf,
) -> Response:
    """Return the response to a request. The client leaves after ``leave_after`` parts of the body."""
    parts: list[bytes] = []
    start: Message = {}
    left = asyncio.Event()
    incoming = iter([{"type": "http.request", "body": content, "more_body": False}])

    async def receive() -> Message:
        if (message := next(incoming, None)) is not None:
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    async def on_message(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            if message.get("body"):
                parts.append(bytes(message["body"]))
            if len(parts) >= leave_after or not message.get("more_body", False):
                left.set()
        await asyncio.sleep(0)

    if leave_after <= 0:
        asyncio.get_running_loop().call_later(0.02, left.set)
    await app(_scope(method, url, headers, content), receive, on_message)
    return Response(
        status=start.get("status", 0),
        headers={name.decode().lower(): value.decode() for name, value in start.get("headers", ())},
        parts=parts,
    )


def _scope(method: str, url: str, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
    divided = urlsplit(url)
    sent = {"host": "test", "content-length": str(len(content)), **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": divided.path,
        "raw_path": divided.path.encode(),
        "root_path": "",
        "query_string": divided.query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }


@asynccontextmanager
async def lifespan(app: AsgiApp) -> AsyncIterator[None]:
    """Start an application, and stop it at exit. Raise `AssertionError` if it can't start."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    outgoing: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.create_task(_run(app, incoming.get, outgoing))
    await incoming.put({"type": "lifespan.startup"})
    started = await outgoing.get()
    assert started["type"] == "lifespan.startup.complete", started.get("message", started["type"])
    try:
        yield
    finally:
        await incoming.put({"type": "lifespan.shutdown"})
        await task


async def _run(
    app: AsgiApp, receive: Callable[[], Awaitable[Message]], outgoing: asyncio.Queue[Message]
) -> None:
    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, outgoing.put)
