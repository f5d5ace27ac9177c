"""Requests that are invalid, too large or too slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.ambiguous_texts import AMBIGUOUS
from support.listener import RawResponse, RunningListener, echo, listening

from fllm_api.cli.event_loop import loop_factory
from fllm_api.listener.connection_limit import MAX_REJECTED_CONNECTIONS

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


def exchange(*pieces: bytes, **options: Any) -> RawResponse:
    """Return the response to bytes sent on a new connection."""
    return within(lambda server: server.exchange(*pieces), **options)


def within(
    work: Callable[[RunningListener], Coroutine[Any, Any, Any]], app: Any = echo, **options: Any
) -> Any:
    """Run the work against a server."""

    async def go() -> Any:
        async with listening(app, **options) as server:
            return await work(server)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(go())


def test_ambiguous_requests_are_400_in_the_envelope() -> None:
    async def work(server: RunningListener) -> dict[str, str]:
        wrong = {}
        for name, data in AMBIGUOUS.items():
            for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
                connection = await server.connect()
                await connection.send(pieces[0])
                for piece in pieces[1:]:
                    await asyncio.sleep(0)
                    await connection.send(piece)
                response = await connection.read_response()
                if (response.status, await connection.read_to_end()) != (400, b"") or not response.headers[
                    "x-request-id"
                ]:
                    wrong[name] = f"{response.status}: {response.body!r}"
                elif response.headers["connection"] != "close":
                    wrong[name] = "stays open"
                elif response.error["type"] != "invalid_request_error":
                    wrong[name] = str(response.error)
                await connection.close()
        return wrong

    assert within(work) == {}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: identity\r\n\r\nabc", 501),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: b\r\n" * 300 + b"\r\n", 431),
    ],
)
def test_unsupported_requests_are_rejected(data: bytes, status: int) -> None:
    response = exchange(data)
    assert (response.status, response.headers["connection"]) == (status, "close")
    assert response.error["type"] == ("server_error" if status >= 500 else "invalid_request_error")


def test_a_header_without_end_is_431() -> None:
    async def work(server: RunningListener) -> RawResponse:
        connection = await server.connect()
        await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        for _ in range(8):
            await asyncio.sleep(0.01)
            await connection.send(b"a" * 16_000)
        return await connection.read_response()

    assert within(work).status == 431


def test_chunks_that_are_all_framing_are_refused() -> None:
    async def work(server: RunningListener) -> RawResponse:
        connection = await server.connect()
        await connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1;")
        for _ in range(8):
            await asyncio.sleep(0.01)
            await connection.send(b"a" * 16_000)
        return await connection.read_response()

    assert within(work).status == 400


def test_a_body_in_chunks_of_one_byte_arrives() -> None:
    response = exchange(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 30_000, b"0\r\n\r\n")
    assert json.loads(response.body)["body"] == "a" * 30_000


def test_trailers_are_no_headers() -> None:
    body = b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    response = exchange(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert json.loads(response.body)["headers"] == ["host", "transfer-encoding"]


def test_an_upgrade_is_ignored_and_the_body_behind_it_is_read() -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"

    async def work(server: RunningListener) -> list[str]:
        connection = await server.connect()
        await connection.send(POST + upgrade + b"Content-Length: 3\r\n\r\nabc" + GET)
        return [json.loads((await connection.read_response()).body)["method"] for _ in range(2)]

    assert within(work) == ["POST", "GET"]


def test_an_empty_line_before_a_request_is_skipped() -> None:
    assert exchange(b"\r\n\r\n" + GET).status == 200


def test_100_continue() -> None:
    async def work(server: RunningListener) -> tuple[int, Any]:
        connection = await server.connect()
        await connection.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        first = await connection.read_response()
        await connection.send(b"abc")
        return first.status, json.loads((await connection.read_response()).body)["body"]

    assert within(work) == (100, "abc")


def test_what_follows_a_last_request_is_not_read() -> None:
    async def work(server: RunningListener) -> bytes:
        connection = await server.connect()
        await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
        return await connection.read_to_end()

    assert within(work).count(b"HTTP/1.1 200") == 1


def test_a_refusal_comes_behind_the_answers_before_it() -> None:
    async def work(server: RunningListener) -> list[int]:
        connection = await server.connect()
        await connection.send(GET + GET + b"nonsense\r\n\r\n")
        statuses = [(await connection.read_response()).status for _ in range(3)]
        assert await connection.read_to_end() == b""
        return statuses

    assert within(work) == [200, 200, 400]


def test_pipelined_requests_are_bounded() -> None:
    async def work(server: RunningListener) -> bytes:
        connection = await server.connect()
        await connection.send(GET * 1000)
        return await connection.read_to_end()

    responded = within(work)
    assert responded.count(b"HTTP/1.1 200") == 17
    assert responded.count(b"HTTP/1.1 400") == 1


@pytest.mark.parametrize(
    ("begun", "what"),
    [
        (b"GET /", "headers"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", "headers"),
        (POST + b"Content-Length: 300\r\n\r\na", "body"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "body"),
    ],
)
def test_a_request_that_arrives_too_slowly_is_408(begun: bytes, what: str) -> None:
    async def work(server: RunningListener) -> tuple[RawResponse, bytes]:
        connection = await server.connect()
        await connection.send(begun)
        trickle = asyncio.create_task(drip(connection))
        response = await connection.read_response()
        trickle.cancel()
        return response, await connection.read_to_end()

    response, rest = within(work, read=0.3)
    assert (response.status, rest) == (408, b"")
    assert response.error["message"] == f"the {what} took longer than 0.3 s"


async def drip(connection: Any) -> None:
    """Send bytes that continue headers as well as a chunk size, too slowly."""
    while True:
        await asyncio.sleep(0.1)
        await connection.send(b"0")


def test_a_connection_without_a_request_is_closed_without_a_response() -> None:
    async def work(server: RunningListener) -> bytes:
        silent, blank = await server.connect(), await server.connect()
        await blank.send(b"\r\n")
        return await silent.read_to_end() + await blank.read_to_end()

    assert within(work, read=0.2) == b""


def test_a_body_that_never_arrives_after_its_response_ends_the_connection() -> None:
    async def early(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await echo(scope, receive, send)
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        return await send({"type": "http.response.body", "body": b""})

    async def work(server: RunningListener) -> tuple[int, bytes]:
        connection = await server.connect()
        await connection.send(POST + b"Content-Length: 3\r\n\r\na")
        return (await connection.read_response()).status, await connection.read_to_end()

    assert within(work, early, read=0.2) == (401, b"")


def test_a_whole_request_has_no_time_limit_of_reading() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.5)
        await echo(scope, receive, send)

    assert within(lambda server: server.exchange(GET), slow, read=0.1).status == 200


def test_a_connection_beyond_the_limit_replaces_an_idle_one() -> None:
    async def work(server: RunningListener) -> tuple[list[int], bytes, int]:
        connections = [await server.connect() for _ in range(3)]
        for connection in connections:
            await connection.send(GET)
        statuses = [(await connection.read_response()).status for connection in connections]
        fourth = await server.exchange(GET)
        closed = await connections[0].read_to_end()
        await connections[1].send(GET)
        return statuses, closed, (fourth.status, (await connections[1].read_response()).status)

    assert within(work, max_connections=3) == ([200] * 3, b"", (200, 200))


def test_a_connection_beyond_the_limit_is_503_if_all_are_busy() -> None:
    async def work(server: RunningListener) -> tuple[RawResponse, int]:
        connection = await server.connect()
        await connection.send(POST + b"Content-Length: 3\r\n\r\n")
        await asyncio.sleep(0.05)
        refused = await server.exchange(GET)
        await connection.send(b"abc")
        return refused, (await connection.read_response()).status

    refused, responded = within(work, max_connections=1)
    assert (refused.status, refused.headers["retry-after"], responded) == (503, "1", 200)
    assert refused.error["type"] == "server_error"


def test_rejected_connections_that_stay_open_are_bounded() -> None:
    async def work(server: RunningListener) -> tuple[int, int]:
        connections = [await server.connect() for _ in range(MAX_REJECTED_CONNECTIONS + 10)]
        for connection in connections:
            await connection.send(b"garbage\r\n\r\n")
        await connections[0].read_to_end()
        newest = await connections[-1].read_response()
        return newest.status, len(server.listener.server_state.connections)

    status, still_open = within(work, max_connections=10)
    assert status == 400
    assert still_open <= MAX_REJECTED_CONNECTIONS


def test_a_request_in_flight_is_notified_if_its_pipelining_client_disconnects() -> None:
    gone = asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await echo(scope, receive, send)
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        return None

    async def work(server: RunningListener) -> None:
        connection = await server.connect()
        await connection.send(GET + GET)
        await asyncio.sleep(0.05)
        await connection.close()
        await asyncio.wait_for(gone.wait(), 10)

    within(work, waiting)


def forwarded(*trusted_proxies: str) -> list[Any]:
    """Return the address and port of the client of a request whose headers name others."""
    head = GET[:-2] + b"X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 198.51.100.1\r\n"
    head += b"Forwarded: for=7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 8.8.8.8\r\n\r\n"
    parsed = json.loads(exchange(head, trusted_proxies=trusted_proxies).body)
    assert parsed["scheme"] == "http"
    client: list[Any] = parsed["client"]
    return client


def test_the_peer_of_a_connection_is_the_client() -> None:
    address, port = forwarded()
    assert address == "127.0.0.1"
    assert port > 0


def test_a_trusted_proxy_names_the_client_without_a_port() -> None:
    assert forwarded("127.0.0.0/8") == ["198.51.100.1", 0]


def test_each_pipelined_request_has_its_own_client() -> None:
    async def both(server: RunningListener) -> list[str]:
        connection = await server.connect()
        await connection.send(GET[:-2] + b"X-Forwarded-For: 198.51.100.1\r\n\r\n" + GET)
        return [json.loads((await connection.read_response()).body)["client"][0] for _ in range(2)]

    assert within(both, trusted_proxies=["127.0.0.1"]) == ["198.51.100.1", "127.0.0.1"]


def test_a_large_body_has_no_time_limit_until_the_application_reads_it() -> None:
    reading = asyncio.Event()

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.7)
            reading.set()
        await echo(scope, receive, send)

    async def work(server: RunningListener) -> int:
        connection = await server.connect()
        await connection.send(POST + b"Content-Length: 100000\r\n\r\n")
        await reading.wait()
        await connection.send(b"x" * 100000)
        status: int = (await connection.read_response()).status
        return status

    assert within(work, busy, read=0.3) == 200


def test_a_large_body_that_stops_arriving_is_408() -> None:
    response = exchange(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 70000, read=0.3)
    assert (response.status, response.error["message"]) == (408, "the body took longer than 0.3 s")


def test_a_large_body_that_arrived_in_one_piece_does_not_limit_the_time_of_its_response() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        async def send_later(message: Any) -> None:
            if scope["type"] == "http":
                await asyncio.sleep(0.4)
            await send(message)

        await echo(scope, receive, send_later)

    data = POST + b"Content-Length: 66000\r\n\r\n" + b"x" * 66000
    response = within(lambda server: server.exchange(data), slow, read=0.2)
    assert len(json.loads(response.body)["body"]) == 66000


async def parts(scope: Any, receive: Any, send: Any) -> None:
    """Respond in parts without a length, or with one if the path says so."""
    if scope["type"] == "lifespan":
        await echo(scope, receive, send)
        return
    headers = [(b"content-length", b"4")] if scope["path"] == "/length" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in (b"ab", b"", b"cd"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.mark.parametrize("path", ["/", "/length"])
@pytest.mark.parametrize("ask_to_stay", [b"", b"Connection: keep-alive\r\n"])
def test_a_response_to_http_1_0_has_no_chunks_and_ends_with_the_connection(
    path: str, ask_to_stay: bytes
) -> None:
    async def work(server: RunningListener) -> bytes:
        connection = await server.connect()
        await connection.send(b"GET %s HTTP/1.0\r\n%s\r\n" % (path.encode(), ask_to_stay))
        return await connection.read_to_end()

    head, _, body = within(work, parts).partition(b"\r\n\r\n")
    assert body == b"abcd"
    assert b"transfer-encoding" not in head
    assert (b"content-length: 4" in head) == (path == "/length")
    assert b"connection: close" in head


def test_a_response_to_http_1_0_that_misses_its_length_is_cut() -> None:
    async def short(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await echo(scope, receive, send)
            return
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"short", "more_body": False})

    async def work(server: RunningListener) -> bytes:
        connection = await server.connect()
        await connection.send(b"GET / HTTP/1.0\r\n\r\n")
        return await connection.read_to_end()

    assert within(work, short).endswith(b"short")


def test_a_head_response_to_http_1_0_has_no_body() -> None:
    async def work(server: RunningListener) -> bytes:
        connection = await server.connect()
        await connection.send(b"HEAD / HTTP/1.0\r\n\r\n")
        return await connection.read_to_end()

    assert within(work, parts).endswith(b"\r\n\r\n")
