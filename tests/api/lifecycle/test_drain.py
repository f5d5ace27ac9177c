"""Shutdown: accepted requests finish, and new ones are rejected with 503."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.api_fakes import FakeBackend, a_server, app_of, backend_of
from support.listener import RawConnection, RawResponse, RunningListener, listening

from fllm.errors import BackendUnavailable
from fllm.values import EngineStats
from fllm_api.app_state import AppState
from fllm_api.cli.event_loop import loop_factory


def serving(
    server: AppState, work: Callable[[RunningListener], Coroutine[Any, Any, Any]], **options: float
) -> Any:
    """Run the work against the whole application."""

    async def go() -> Any:
        async with listening(app_of(server), server.drain, **options) as running:
            return await work(running)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(go())


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def completion(**body: Any) -> bytes:
    encoded = json.dumps({"model": "m", "prompt": "x", **body}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(encoded)}\r\n\r\n".encode() + encoded


class HeldBackend(FakeBackend):
    """Stops after the first step until `go` is set."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__([[i] for i in ids])
        self.go = asyncio.Event()

    async def generate(self, request: Any) -> Any:
        first = True
        async for step in super().generate(request):
            if not first:
                await self.go.wait()
            first = False
            yield step


def held() -> tuple[AppState, HeldBackend]:
    server = a_server()
    backend = HeldBackend([step[0] for step in backend_of(server).steps[:3]])
    return a_server(backend=backend), backend


async def start_request(running: RunningListener, backend: FakeBackend, *, stream: bool) -> RawConnection:
    """Send a request, and return once the engine has received it."""
    connection = await running.connect()
    known = len(backend.prompts)
    await connection.send(completion(stream=stream))
    while len(backend.prompts) == known:
        await asyncio.sleep(0.005)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_requests_in_flight_finish_and_new_ones_are_503(stream: bool) -> None:
    server, backend = held()

    async def work(running: RunningListener) -> tuple[RawResponse, RawResponse, bool]:
        connection = await start_request(running, backend, stream=stream)
        idle = await running.connect()
        await idle.send(get("/v1/models"))
        await idle.read_response()
        running.listener.drain()
        refused = await running.exchange(completion())
        on_an_idle_connection = await (await idle_again(idle)).read_response()
        assert on_an_idle_connection.status == 503
        assert not running.serving.done()
        backend.go.set()
        response = await connection.read_response()
        await asyncio.wait_for(running.serving, 10)
        return response, refused, await connection.read_to_end() == b""

    async def idle_again(connection: RawConnection) -> RawConnection:
        await connection.send(get("/v1/models"))
        return connection

    response, refused, closed = serving(server, work)
    assert (response.status, closed) == (200, True)
    assert b"Hello world!" in response.body or response.body.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in response.body
    assert (refused.status, refused.headers["connection"]) == (503, "close")
    assert refused.headers["retry-after"] == "1"
    assert refused.error["message"] == "the server is shutting down"


def test_health_responds_while_draining_and_ready_gives_the_reason() -> None:
    server, backend = held()

    async def work(running: RunningListener) -> list[RawResponse]:
        assert (await running.exchange(get("/ready"))).status == 200
        await start_request(running, backend, stream=True)
        running.listener.drain()
        responses = [await running.exchange(get(path)) for path in ("/health", "/ready")]
        backend.go.set()
        return responses

    health, ready = serving(server, work)
    assert (health.status, ready.status) == (200, 503)
    assert ready.error["message"] == "the server is shutting down"


def test_a_stream_that_is_not_done_in_time_ends_with_an_error_event() -> None:
    server, backend = held()

    async def work(running: RunningListener) -> RawResponse:
        connection = await start_request(running, backend, stream=True)
        await asyncio.sleep(0.05)
        running.listener.drain()
        response = await connection.read_response()
        await asyncio.wait_for(running.serving, 10)
        return response

    response = serving(server, work, shutdown_timeout=0.1)
    *_, event, done = response.body.decode().strip().split("\n\n")
    assert (response.status, done) == (200, "data: [DONE]")
    assert json.loads(event[6:])["error"]["message"] == "the server is shutting down"
    assert len(backend.aborted) == 1


def test_a_json_response_that_is_not_done_in_time_is_503() -> None:
    server, backend = held()

    async def work(running: RunningListener) -> RawResponse:
        connection = await start_request(running, backend, stream=False)
        running.listener.drain()
        return await connection.read_response()

    response = serving(server, work, shutdown_timeout=0.1)
    assert (response.status, response.error["code"]) == (503, "unavailable")
    assert len(backend.aborted) == 1


def test_a_request_without_its_body_is_503_after_the_shutdown_timeout() -> None:
    server = a_server()

    async def work(running: RunningListener) -> RawResponse:
        connection = await running.connect()
        await connection.send(completion()[:-3])
        await asyncio.sleep(0.05)
        running.listener.drain()
        return await connection.read_response()

    assert serving(server, work, shutdown_timeout=0.1).status == 503


def test_a_handler_that_never_returns_does_not_block_the_shutdown() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive())["type"] != "http.disconnect":
            pass

    async def go() -> None:
        async with listening(endless, shutdown_timeout=0.1) as running:
            connection = await running.connect()
            await connection.send(get("/"))
            await asyncio.sleep(0.05)
            running.listener.drain()
            await asyncio.wait_for(running.serving, 20)

    asyncio.run(go())


def test_a_dead_engine_is_not_ready() -> None:
    server = a_server()
    backend_of(server).health = BackendUnavailable("the engine is being started")

    async def work(running: RunningListener) -> list[RawResponse]:
        return [await running.exchange(get(path)) for path in ("/health", "/ready")]

    responses = serving(server, work)
    assert [response.status for response in responses] == [503, 503]
    assert responses[1].error["message"] == "the engine is being started"


class BusyBackend(FakeBackend):
    """Reports a long queue."""

    async def status(self) -> EngineStats:
        return EngineStats(waiting=7)


@pytest.mark.parametrize(("max_queue", "status"), [(8, 200), (7, 503)])
def test_a_full_queue_is_healthy_and_not_ready(max_queue: int, status: int) -> None:
    server = a_server(backend=BusyBackend(), config={"max_queue": max_queue})

    async def work(running: RunningListener) -> list[int]:
        return [(await running.exchange(get(path))).status for path in ("/health", "/ready")]

    assert serving(server, work) == [200, status]
