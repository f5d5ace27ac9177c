"""The end of a server: nothing that was accepted is lost, nothing more is accepted, and it says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.api_fakes import FakeBackend, a_server, app_of, backend_of
from support.listener import Answer, Listening, Wire, listening

from fllm.errors import BackendUnavailable
from fllm.values import EngineStats
from fllm_api.app_state import AppState
from fllm_api.cli.event_loop import loop_factory


def serving(server: AppState, work: Callable[[Listening], Coroutine[Any, Any, Any]], **options: float) -> Any:
    """Do the work with the whole application."""

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
    """Brings nothing more after the first step until it is let go."""

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


async def under_way(running: Listening, backend: FakeBackend, *, stream: bool) -> Wire:
    """A request that the engine works on."""
    wire = await running.connect()
    known = len(backend.prompts)
    await wire.send(completion(stream=stream))
    while len(backend.prompts) == known:
        await asyncio.sleep(0.005)
    return wire


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_under_way_is_finished_and_new_requests_are_503(stream: bool) -> None:
    server, backend = held()

    async def work(running: Listening) -> tuple[Answer, Answer, bool]:
        wire = await under_way(running, backend, stream=stream)
        idle = await running.connect()
        await idle.send(get("/v1/models"))
        await idle.answer()
        running.listener.drain()
        refused = await running.tell(completion())
        on_an_idle_connection = await (await idle_again(idle)).answer()
        assert on_an_idle_connection.status == 503
        assert not running.serving.done()
        backend.go.set()
        answer = await wire.answer()
        await asyncio.wait_for(running.serving, 10)
        return answer, refused, await wire.rest() == b""

    async def idle_again(wire: Wire) -> Wire:
        await wire.send(get("/v1/models"))
        return wire

    answer, refused, closed = serving(server, work)
    assert (answer.status, closed) == (200, True)
    assert b"Hello world!" in answer.body or answer.body.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in answer.body
    assert (refused.status, refused.headers["connection"]) == (503, "close")
    assert refused.headers["retry-after"] == "1"
    assert refused.error["message"] == "the server is shutting down"


def test_health_and_metrics_answer_while_it_drains_and_ready_says_why_not() -> None:
    server, backend = held()

    async def work(running: Listening) -> list[Answer]:
        assert (await running.tell(get("/ready"))).status == 200
        await under_way(running, backend, stream=True)
        running.listener.drain()
        said = [await running.tell(get(path)) for path in ("/health", "/ready")]
        backend.go.set()
        return said

    health, ready = serving(server, work)
    assert (health.status, ready.status) == (200, 503)
    assert ready.error["message"] == "the server is shutting down"


def test_a_stream_that_is_not_done_in_time_ends_with_an_error_event() -> None:
    server, backend = held()

    async def work(running: Listening) -> Answer:
        wire = await under_way(running, backend, stream=True)
        await asyncio.sleep(0.05)
        running.listener.drain()
        answer = await wire.answer()
        await asyncio.wait_for(running.serving, 10)
        return answer

    answer = serving(server, work, shutdown_timeout=0.1)
    *_, event, done = answer.body.decode().strip().split("\n\n")
    assert (answer.status, done) == (200, "data: [DONE]")
    assert json.loads(event[6:])["error"]["message"] == "the server is shutting down"
    assert len(backend.aborted) == 1


def test_a_whole_answer_that_is_not_done_in_time_is_503() -> None:
    server, backend = held()

    async def work(running: Listening) -> Answer:
        wire = await under_way(running, backend, stream=False)
        running.listener.drain()
        return await wire.answer()

    answer = serving(server, work, shutdown_timeout=0.1)
    assert (answer.status, answer.error["code"]) == (503, "unavailable")
    assert len(backend.aborted) == 1


def test_a_body_that_is_still_to_come_is_503_when_the_time_is_over() -> None:
    server = a_server()

    async def work(running: Listening) -> Answer:
        wire = await running.connect()
        await wire.send(completion()[:-3])
        await asyncio.sleep(0.05)
        running.listener.drain()
        return await wire.answer()

    assert serving(server, work, shutdown_timeout=0.1).status == 503


def test_a_handler_that_does_not_end_holds_no_server() -> None:
    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive())["type"] != "http.disconnect":
            pass

    async def go() -> None:
        async with listening(deaf, shutdown_timeout=0.1) as running:
            wire = await running.connect()
            await wire.send(get("/"))
            await asyncio.sleep(0.05)
            running.listener.drain()
            await asyncio.wait_for(running.serving, 20)

    asyncio.run(go())


def test_a_dead_engine_is_not_ready() -> None:
    server = a_server()
    backend_of(server).health = BackendUnavailable("the engine is being started")

    async def work(running: Listening) -> list[Answer]:
        return [await running.tell(get(path)) for path in ("/health", "/ready")]

    answers = serving(server, work)
    assert [answer.status for answer in answers] == [503, 503]
    assert answers[1].error["message"] == "the engine is being started"


class Crowded(FakeBackend):
    """Many wait for it."""

    async def status(self) -> EngineStats:
        return EngineStats(waiting=7)


@pytest.mark.parametrize(("max_queue", "status"), [(8, 200), (7, 503)])
def test_a_full_queue_is_healthy_and_not_ready(max_queue: int, status: int) -> None:
    server = a_server(backend=Crowded(), config={"max_queue": max_queue})

    async def work(running: Listening) -> list[int]:
        return [(await running.tell(get(path))).status for path in ("/health", "/ready")]

    assert serving(server, work) == [200, status]
