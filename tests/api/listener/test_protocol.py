"""What comes over the wire and is no request, too much of one, or too slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.ambiguous_texts import AMBIGUOUS
from support.listener import Answer, Listening, listening

from fllm_api.cli.event_loop import loop_factory

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says what it understood."""
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
    heard = {
        "method": scope["method"],
        "path": scope["path"],
        "body": body.decode("latin-1"),
        "headers": [name.decode() for name, _ in scope["headers"]],
    }
    said = json.dumps(heard).encode()
    headers = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


def told(*pieces: bytes, **options: float) -> Answer:
    """The answer to what is sent on one connection."""
    return within(lambda server: server.tell(*pieces), **options)


def within(work: Callable[[Listening], Coroutine[Any, Any, Any]], app: Any = echo, **options: float) -> Any:
    """Do the work with a server."""

    async def go() -> Any:
        async with listening(app, **options) as server:
            return await work(server)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(go())


def test_what_could_be_read_in_two_ways_is_400_in_the_envelope() -> None:
    async def work(server: Listening) -> dict[str, str]:
        wrong = {}
        for name, data in AMBIGUOUS.items():
            for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
                wire = await server.connect()
                await wire.send(pieces[0])
                for piece in pieces[1:]:
                    await asyncio.sleep(0)
                    await wire.send(piece)
                answer = await wire.answer()
                if (answer.status, await wire.rest()) != (400, b"") or not answer.headers["x-request-id"]:
                    wrong[name] = f"{answer.status}: {answer.body!r}"
                elif answer.headers["connection"] != "close":
                    wrong[name] = "stays open"
                elif answer.error["type"] != "invalid_request_error":
                    wrong[name] = str(answer.error)
                await wire.close()
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
def test_what_is_not_served_says_so(data: bytes, status: int) -> None:
    answer = told(data)
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert answer.error["type"] == ("server_error" if status >= 500 else "invalid_request_error")


def test_a_header_without_end_is_431() -> None:
    async def work(server: Listening) -> Answer:
        wire = await server.connect()
        await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        for _ in range(8):
            await asyncio.sleep(0.01)
            await wire.send(b"a" * 16_000)
        return await wire.answer()

    assert within(work).status == 431


def test_chunks_that_are_all_framing_are_refused() -> None:
    async def work(server: Listening) -> Answer:
        wire = await server.connect()
        await wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n1;")
        for _ in range(8):
            await asyncio.sleep(0.01)
            await wire.send(b"a" * 16_000)
        return await wire.answer()

    assert within(work).status == 400


def test_a_body_in_chunks_of_one_byte_arrives() -> None:
    answer = told(POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 30_000, b"0\r\n\r\n")
    assert json.loads(answer.body)["body"] == "a" * 30_000


def test_trailers_are_no_headers() -> None:
    body = b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    answer = told(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert json.loads(answer.body)["headers"] == ["host", "transfer-encoding"]


def test_an_upgrade_is_ignored_and_the_body_behind_it_is_read() -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"

    async def work(server: Listening) -> list[str]:
        wire = await server.connect()
        await wire.send(POST + upgrade + b"Content-Length: 3\r\n\r\nabc" + GET)
        return [json.loads((await wire.answer()).body)["method"] for _ in range(2)]

    assert within(work) == ["POST", "GET"]


def test_an_empty_line_before_a_request_is_skipped() -> None:
    assert told(b"\r\n\r\n" + GET).status == 200


def test_100_continue() -> None:
    async def work(server: Listening) -> tuple[int, Any]:
        wire = await server.connect()
        await wire.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        first = await wire.answer()
        await wire.send(b"abc")
        return first.status, json.loads((await wire.answer()).body)["body"]

    assert within(work) == (100, "abc")


def test_what_follows_a_last_request_is_not_read() -> None:
    async def work(server: Listening) -> bytes:
        wire = await server.connect()
        await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
        return await wire.rest()

    assert within(work).count(b"HTTP/1.1 200") == 1


def test_a_refusal_comes_behind_the_answers_before_it() -> None:
    async def work(server: Listening) -> list[int]:
        wire = await server.connect()
        await wire.send(GET + GET + b"nonsense\r\n\r\n")
        statuses = [(await wire.answer()).status for _ in range(3)]
        assert await wire.rest() == b""
        return statuses

    assert within(work) == [200, 200, 400]


def test_pipelined_requests_are_bounded() -> None:
    async def work(server: Listening) -> bytes:
        wire = await server.connect()
        await wire.send(GET * 1000)
        return await wire.rest()

    answered = within(work)
    assert answered.count(b"HTTP/1.1 200") == 17
    assert answered.count(b"HTTP/1.1 400") == 1


@pytest.mark.parametrize(
    ("begun", "what"),
    [
        (b"GET /", "headers"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", "headers"),
        (POST + b"Content-Length: 300\r\n\r\na", "body"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "body"),
    ],
)
def test_what_trickles_in_is_408(begun: bytes, what: str) -> None:
    async def work(server: Listening) -> tuple[Answer, bytes]:
        wire = await server.connect()
        await wire.send(begun)
        trickle = asyncio.create_task(drip(wire))
        answer = await wire.answer()
        trickle.cancel()
        return answer, await wire.rest()

    answer, rest = within(work, read=0.3)
    assert (answer.status, rest) == (408, b"")
    assert answer.error["message"] == f"the {what} took longer than 0.3 s"


async def drip(wire: Any) -> None:
    """Bytes that go on with headers as with a length of chunks, too few to matter."""
    while True:
        await asyncio.sleep(0.1)
        await wire.send(b"0")


def test_a_connection_that_brings_nothing_is_closed_without_a_word() -> None:
    async def work(server: Listening) -> bytes:
        silent, blank = await server.connect(), await server.connect()
        await blank.send(b"\r\n")
        return await silent.rest() + await blank.rest()

    assert within(work, read=0.2) == b""


def test_a_body_that_never_comes_after_its_answer_holds_no_connection() -> None:
    async def early(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await echo(scope, receive, send)
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        return await send({"type": "http.response.body", "body": b""})

    async def work(server: Listening) -> tuple[int, bytes]:
        wire = await server.connect()
        await wire.send(POST + b"Content-Length: 3\r\n\r\na")
        return (await wire.answer()).status, await wire.rest()

    assert within(work, early, read=0.2) == (401, b"")


def test_a_whole_request_has_no_time_limit_of_reading() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.5)
        await echo(scope, receive, send)

    assert within(lambda server: server.tell(GET), slow, read=0.1).status == 200


def test_one_connection_too_many_takes_the_place_of_an_idle_one() -> None:
    async def work(server: Listening) -> tuple[list[int], bytes, int]:
        wires = [await server.connect() for _ in range(3)]
        for wire in wires:
            await wire.send(GET)
        statuses = [(await wire.answer()).status for wire in wires]
        fourth = await server.tell(GET)
        closed = await wires[0].rest()
        await wires[1].send(GET)
        return statuses, closed, (fourth.status, (await wires[1].answer()).status)

    assert within(work, max_connections=3) == ([200] * 3, b"", (200, 200))


def test_where_all_connections_are_at_work_one_more_is_503() -> None:
    async def work(server: Listening) -> tuple[Answer, int]:
        wire = await server.connect()
        await wire.send(POST + b"Content-Length: 3\r\n\r\n")
        await asyncio.sleep(0.05)
        refused = await server.tell(GET)
        await wire.send(b"abc")
        return refused, (await wire.answer()).status

    refused, answered = within(work, max_connections=1)
    assert (refused.status, refused.headers["retry-after"], answered) == (503, "1", 200)
    assert refused.error["type"] == "server_error"


def test_a_client_that_pipelines_and_leaves_is_noticed_by_the_request_under_way() -> None:
    gone = asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await echo(scope, receive, send)
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        return None

    async def work(server: Listening) -> None:
        wire = await server.connect()
        await wire.send(GET + GET)
        await asyncio.sleep(0.05)
        await wire.close()
        await asyncio.wait_for(gone.wait(), 10)

    within(work, waiting)
