"""The HTTP listener over an application in this process, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fllm_api.lifecycle.drain import RequestDrain
from fllm_api.listener import ConnectionTimeouts, Listener


class Listening:
    """A listener in its main loop, and its port."""

    def __init__(self, listener: Listener, port: int, serving: asyncio.Task[None]) -> None:
        self.listener = listener
        self.port = port
        self.serving = serving
        self._wires: list[Wire] = []

    async def connect(self) -> Wire:
        """A raw connection."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self._wires.append(wire)
        return wire

    async def tell(self, *pieces: bytes) -> Answer:
        """Send the pieces on a new connection, and read one answer."""
        wire = await self.connect()
        for piece in pieces:
            await wire.send(piece)
        return await wire.answer()

    async def hang_up(self) -> None:
        """Close all connections."""
        for wire in self._wires:
            await wire.close()


class Answer:
    """A response, read from the wire."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(line.split(" ")[1])
        self.headers = {
            name.lower(): value for name, value in (each.split(": ", 1) for each in lines if each)
        }
        self.body = body

    @property
    def error(self) -> dict[str, Any]:
        """What the envelope holds."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Wire:
    """One connection, byte by byte."""

    def __init__(self, scanner: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = scanner
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Write it, whatever it is."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, seconds: float = 20) -> Answer:
        """Read one response with a content-length, or chunks."""
        async with asyncio.timeout(seconds):
            head = (await self._reader.readuntil(b"\r\n\r\n"))[:-4]
            answer = Answer(head, b"")
            if "chunked" in answer.headers.get("transfer-encoding", ""):
                answer.body = await self._chunks()
            else:
                answer.body = await self._reader.readexactly(int(answer.headers.get("content-length", 0)))
        return answer

    async def rest(self, seconds: float = 20) -> bytes:
        """All that comes until the server closes the connection."""
        async with asyncio.timeout(seconds):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return body


@asynccontextmanager
async def listening(
    app: Any, drain: RequestDrain | None = None, **options: float
) -> AsyncIterator[Listening]:
    """Serve the application; ``options``: ``read``, ``write``, ``max_connections``, ``shutdown_timeout``."""
    end = socket.create_server(("127.0.0.1", 0))
    ready = asyncio.Event()
    listener = Listener(
        app,
        drain or RequestDrain(),
        ConnectionTimeouts(read=options.get("read", 30), write=options.get("write", 30)),
        max_connections=int(options.get("max_connections", 100)),
        shutdown_timeout=options.get("shutdown_timeout", 5),
    )
    listener.on_ready = ready.set
    serving = asyncio.create_task(listener.serve([end]))
    await ready.wait()
    server = Listening(listener, end.getsockname()[1], serving)
    try:
        yield server
    finally:
        await server.hang_up()
        listener.drain()
        await serving
