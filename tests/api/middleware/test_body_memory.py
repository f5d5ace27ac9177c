"""Bodies that are counted while they are read and decoded."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, post
from litestar.datastructures import State
from litestar.utils.scope.state import ScopeState

from fllm import STREAMS_BODY
from fllm_api.intake.json_body import ApiRequest
from fllm_api.limits.body_memory import SMALL_BODY, BodyMemory
from fllm_api.middleware.body_memory import BodyMemoryMiddleware

MIB = 1024 * 1024


class Seen:
    """What the handler saw: free memory, and the scope."""

    free: tuple[int, int]
    scope: Any


def an_app(memory: BodyMemory, seen: Seen) -> Litestar:
    @post("/", status_code=200)
    async def read(request: Request[Any, Any, State]) -> int:
        value = await request.json()
        seen.free = (memory.received.free, memory.decoded.free)
        seen.scope = request.scope
        return len(value)

    return Litestar(
        [read], middleware=[BodyMemoryMiddleware(memory)], request_class=ApiRequest, logging_config=None
    )


def a_streaming_app(memory: BodyMemory, seen: Seen) -> Litestar:
    @post("/", status_code=200, opt=STREAMS_BODY, request_max_body_size=None)
    async def read(request: Request[Any, Any, State]) -> int:
        size = sum([len(piece) async for piece in request.stream()])
        seen.free = (memory.received.free, memory.decoded.free)
        return size

    return Litestar(
        [read], middleware=[BodyMemoryMiddleware(memory)], request_class=ApiRequest, request_max_body_size=1
    )


def send(memory: BodyMemory, seen: Seen, *, app: Any = an_app, **request: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app(memory, seen))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/", **request)

    return asyncio.run(go())


async def in_pieces(body: bytes) -> Any:
    for i in range(0, len(body), SMALL_BODY):
        yield body[i : i + SMALL_BODY]


def test_a_large_body_of_a_plugins_route_is_counted_until_the_request_ends() -> None:
    memory, seen = BodyMemory(16 * MIB, max_wait=1), Seen()
    body = b'"' + b"x" * MIB + b'"'
    assert send(memory, seen, content=body).json() == MIB
    assert seen.free == (8 * MIB - len(body), 8 * MIB - 3 * len(body))
    assert (memory.received.free, memory.decoded.free) == (8 * MIB, 8 * MIB)
    assert ScopeState.from_scope(seen.scope).body == b""
    assert ScopeState.from_scope(seen.scope).json is None


def test_a_small_body_needs_no_memory_to_be_read() -> None:
    memory, seen = BodyMemory(16 * MIB, max_wait=1), Seen()
    assert send(memory, seen, json="x").json() == 1
    assert seen.free == (8 * MIB, 8 * MIB - 9)


def test_a_body_in_chunks_takes_memory_as_it_grows() -> None:
    memory, seen = BodyMemory(16 * MIB, max_wait=1), Seen()
    assert send(memory, seen, content=in_pieces(b'"' + b"x" * MIB + b'"')).json() == MIB
    assert seen.free[0] == 6 * MIB
    assert memory.received.free == 8 * MIB


@pytest.mark.parametrize("content", [b'"' + b"x" * 2 * MIB + b'"', in_pieces(b'"' + b"x" * 2 * MIB + b'"')])
def test_a_body_that_never_fits_is_413(content: Any) -> None:
    memory = BodyMemory(2 * MIB, max_wait=1)
    assert send(memory, Seen(), content=content).status_code == 413
    assert memory.received.free == MIB


def test_a_body_that_its_handler_streams_needs_no_memory() -> None:
    memory, seen = BodyMemory(MIB, max_wait=1), Seen()
    for content in (b"x" * 2 * MIB, in_pieces(b"x" * 2 * MIB)):
        assert send(memory, seen, app=a_streaming_app, content=content).json() == 2 * MIB
        assert seen.free == (MIB // 2, MIB // 2)


def test_invalid_json_returns_the_memory() -> None:
    memory = BodyMemory(16 * MIB, max_wait=1)
    assert send(memory, Seen(), content=b'"' + b"x" * MIB).is_error
    assert (memory.received.free, memory.decoded.free) == (8 * MIB, 8 * MIB)
