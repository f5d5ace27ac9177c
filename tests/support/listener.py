"""The HTTP listener in this process, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fllm_api.lifecycle.drain import RequestDrain
from fllm_api.listener import ConnectionTimeouts, Listener
from fllm_api.tls import ServerTls
from fllm_api.trusted_proxies import TrustedProxies


class RunningListener:
    """A listener that serves, and its port."""

    def __init__(self, listener: Listener, port: int, serving: asyncio.Task[None]) -> None:
        self.listener = listener
        self.port = port
        self.serving = serving
        self._connections: list[RawConnection] = []

    async def connect(self, tls: ssl.SSLContext | None = None) -> RawConnection:
        """Open a raw connection, or one of TLS."""
        connection = RawConnection(*await asyncio.open_connection("127.0.0.1", self.port, ssl=tls))
        self._connections.append(connection)
        return connection

    async def exchange(self, *pieces: bytes) -> RawResponse:
        """Send the pieces on a new connection, and return the response."""
        connection = await self.connect()
        for piece in pieces:
            await connection.send(piece)
        return await connection.read_response()

    async def close_connections(self) -> None:
        """Close all connections to the listener."""
        for connection in self._connections:
            await connection.close()


class RawResponse:
    """A response as it was received."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(line.split(" ")[1])
        self.headers = {
            name.lower(): value for name, value in (each.split(": ", 1) for each in lines if each)
        }
        self.body = body

    @property
    def error(self) -> dict[str, Any]:
        """The content of the error envelope."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class RawConnection:
    """A client connection that sends and receives bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def read_response(self, seconds: float = 20) -> RawResponse:
        """Return the next response, which has a content length or is chunked."""
        async with asyncio.timeout(seconds):
            head = (await self._reader.readuntil(b"\r\n\r\n"))[:-4]
            response = RawResponse(head, b"")
            if "chunked" in response.headers.get("transfer-encoding", ""):
                response.body = await self._chunks()
            else:
                response.body = await self._reader.readexactly(int(response.headers.get("content-length", 0)))
        return response

    async def read_to_end(self, seconds: float = 20) -> bytes:
        """Return all bytes received until the server closes the connection."""
        async with asyncio.timeout(seconds):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Return the request as it was parsed."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    parsed = {
        "method": scope["method"],
        "path": scope["path"],
        "client": scope["client"],
        "scheme": scope["scheme"],
        "body": body.decode("latin-1"),
        "headers": [name.decode() for name, _ in scope["headers"]],
    }
    encoded = json.dumps(parsed).encode()
    headers = [(b"content-length", b"%d" % len(encoded))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": encoded})


@asynccontextmanager
async def listening(
    app: Any,
    drain: RequestDrain | None = None,
    *,
    trusted_proxies: Sequence[str] = (),
    tls: ServerTls | None = None,
    **options: float,
) -> AsyncIterator[RunningListener]:
    """Serve the application; ``options``: ``read``, ``write``, ``max_connections``, ``shutdown_timeout``."""
    end = socket.create_server(("127.0.0.1", 0))
    ready = asyncio.Event()
    listener = Listener(
        app,
        drain or RequestDrain(),
        ConnectionTimeouts(read=options.get("read", 30), write=options.get("write", 30)),
        max_connections=int(options.get("max_connections", 100)),
        shutdown_timeout=options.get("shutdown_timeout", 5),
        trusted_proxies=TrustedProxies.parse(trusted_proxies),
        tls=tls,
    )
    listener.on_ready = ready.set
    serving = asyncio.create_task(listener.serve([end]))
    await ready.wait()
    server = RunningListener(listener, end.getsockname()[1], serving)
    try:
        yield server
    finally:
        await server.close_connections()
        listener.drain()
        await serving
