"""A client that does not read occupies a bounded buffer for a bounded time."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.api_fakes import FakeBackend, a_server, app_of, backend_of
from support.listener import RunningListener, listening

from fllm_api.cli.event_loop import loop_factory

GET = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow-one\r\n\r\n"
CHUNK = b"x" * 1000


class Sender:
    """An application that sends as much as it can."""

    def __init__(self, body: int = 0) -> None:
        self.body = body
        """Size of the response in bytes; 0 means an endless stream."""
        self.sent = 0
        self.over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await receive()
        gone = asyncio.create_task(receive())
        length = [(b"content-length", b"%d" % self.body)] if self.body else []
        await send({"type": "http.response.start", "status": 200, "headers": length})
        if self.body:
            await send({"type": "http.response.body", "body": b"x" * self.body})
        while not gone.done():
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            self.sent += len(CHUNK)
            await asyncio.sleep(0)
        self.over.set()


@asynccontextmanager
async def reader(server: RunningListener, request: bytes) -> AsyncIterator[socket.socket]:
    """Open a connection with a tiny buffer and send a request, without reading the response."""
    with socket.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(end, ("127.0.0.1", server.port))
        await loop.sock_sendall(end, request)
        yield end


def within(app: Any, work: Callable[[RunningListener], Coroutine[Any, Any, Any]], *, write: float) -> Any:
    async def go() -> Any:
        async with listening(app, write=write) as server, asyncio.timeout(30):
            return await work(server)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(go())


async def no_connection(server: RunningListener) -> None:
    while server.listener.server_state.connections:
        await asyncio.sleep(0.01)


def test_a_stream_that_is_not_read_is_aborted_and_fills_only_a_small_buffer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Sender()

    async def work(server: RunningListener) -> None:
        async with reader(server, GET):
            await app.over.wait()
            await no_connection(server)

    within(app, work, write=0.3)
    assert app.sent < 512 * 1024
    [line] = [record for record in caplog.records if "read nothing for 0.3 s" in record.getMessage()]
    assert (line.levelno, line.__dict__["request_id"]) == (logging.WARNING, "slow-one")


def test_a_reader_that_is_only_slow_is_served() -> None:
    app = Sender()

    async def work(server: RunningListener) -> int:
        read = 0
        async with reader(server, GET) as end:
            for _ in range(60):  # 80 kB/s, for three times the limit
                read += len(await asyncio.get_running_loop().sock_recv(end, 4000))
                await asyncio.sleep(0.05)
            assert not app.over.is_set()
        await app.over.wait()
        return read

    assert within(app, work, write=1) > 50_000


def test_reading_ten_bytes_per_second_counts_as_not_reading() -> None:
    app = Sender()

    async def work(server: RunningListener) -> None:
        async with reader(server, GET) as end:
            while not app.over.is_set():
                await asyncio.get_running_loop().sock_recv(end, 1)
                await asyncio.sleep(0.1)

    within(app, work, write=1)
    assert app.sent < 512 * 1024


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
def test_a_complete_response_that_is_not_read_is_aborted(more: bytes) -> None:
    async def work(server: RunningListener) -> None:
        async with reader(server, GET[:-2] + more + b"\r\n"):
            await asyncio.sleep(0.1)
            assert server.listener.server_state.connections
            await no_connection(server)

    within(Sender(8_000_000), work, write=0.3)


@pytest.mark.parametrize("body", [200_000, 64_000])
def test_the_last_response_of_a_connection_is_aborted_if_it_is_not_read(body: int) -> None:
    async def work(server: RunningListener) -> None:
        async with reader(server, GET[:-2] + b"Connection: close\r\n\r\n"):
            await asyncio.sleep(0.1)
            await no_connection(server)

    within(Sender(body), work, write=0.3)


def test_a_request_whose_client_does_not_read_is_aborted_in_the_engine() -> None:
    server = a_server(["word " * 100] * 3)
    fake = backend_of(server)
    backend = FakeBackend(fake.steps[:1] * 100_000)
    server = a_server(["word " * 100] * 3, backend=backend, card={"max_model_len": 200_000})
    body = b'{"model": "m", "prompt": "x", "stream": true, "max_tokens": 100000}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def work(running: RunningListener) -> None:
        async with reader(running, request):
            while not backend.aborted:
                await asyncio.sleep(0.01)

    within(app_of(server), work, write=0.3)
    assert backend.aborted == [backend.prompts[0].request_id]
