"""The client, against a server that answers well or badly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from support.wire_server import (
    CLOSE,
    EVENT_STREAM,
    HANG,
    LAST_CHUNK,
    answering,
    chunk,
    event,
    refusal,
    tokens,
    whole,
)

from fllm.errors import UserError
from fllm_api.bench.answer import Answer
from fllm_api.bench.client import Client, Contact, Failure, meet
from fllm_api.bench.server import Manner, parse_server

BODY = event({"choices": [{"text": " a"}]}) + event({"choices": [{"finish_reason": "length"}]})


def contact(url: str, **manner: Any) -> Contact:
    return Contact(server=parse_server(url), manner=Manner(**manner), model="m", exactness="ignore_eos")


def ask(url: str, times: int = 1, *, stream: bool = True, **manner: Any) -> list[Answer]:
    """Several requests, one after another, over one client."""

    async def go() -> list[Answer]:
        client = Client(contact(url, **manner))
        try:
            return [await client.ask("one two three", 4, stream=stream) for _ in range(times)]
        finally:
            client.close()

    return asyncio.run(go())


def met(url: str, **manner: Any) -> Contact:
    return asyncio.run(meet(parse_server(url, "peer"), Manner(**manner), "one two"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("chat", [True, False])
def test_an_answer_has_its_tokens_counted(chat: bool, stream: bool) -> None:
    with answering() as server:
        [answer] = ask(server.url, chat=chat, stream=stream)
    assert (answer.prompt_tokens, answer.output_tokens) == (3, 4)
    [body] = server.bodies
    assert (body["max_tokens"], body["min_tokens"], body["ignore_eos"], body["temperature"]) == (
        4,
        4,
        True,
        0,
    )
    assert ("messages" in body) is chat
    assert server.heads[0].startswith("POST /v1/chat/completions " if chat else "POST /v1/completions ")


def test_a_connection_serves_one_request_after_another() -> None:
    with answering() as server:
        assert len(ask(server.url, 3)) == 3
    assert server.connections == 1


def test_requests_at_once_have_a_connection_each() -> None:
    async def go(url: str) -> None:
        client = Client(contact(url))
        for _ in range(2):
            await asyncio.gather(*(client.ask("one", 4) for _ in range(5)))
        client.close()

    with answering() as server:
        asyncio.run(go(server.url))
    assert server.connections == 5


@pytest.mark.parametrize("size", [1, 2, 5, 60])
def test_bytes_may_come_in_any_pieces(size: int) -> None:
    def crumbs(body: dict[str, Any]) -> Iterator[bytes]:
        data = b"".join(tokens(body))
        yield from (data[i : i + size] for i in range(0, len(data), size))

    with answering(crumbs) as server:
        assert ask(server.url)[0].output_tokens == 4


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"],
)
def test_a_body_may_end_with_its_connection(head: bytes) -> None:
    with answering(lambda body: [head, BODY, CLOSE]) as server:
        assert [answer.output_tokens for answer in ask(server.url, 2)] == [1, 1]
    assert server.connections == 2


@pytest.mark.parametrize("pause", [0, 0.0005, 0.001, 0.0015, 0.05])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_server_may_close_between_requests(loop_factory: Any, pause: float) -> None:
    async def go(url: str) -> None:
        client = Client(contact(url))
        for _ in range(5):
            await client.ask("one", 4)
            await asyncio.sleep(pause)
        client.close()

    closing = answering(lambda body: [*tokens(body), CLOSE])
    with closing as server, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(go(server.url))
    assert (server.connections, len(server.bodies)) == (5, 5)


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ([refusal("400 Bad Request", "no such field")], "HTTP 400: no such field"),
        ([refusal("500 Oops", "out of memory")], "HTTP 500: out of memory"),
        ([whole(b"<html>gone</html>", "502 Bad Gateway")], "HTTP 502: <html>gone</html>"),
        ([EVENT_STREAM, chunk(event({"error": {"message": "it died"}})), LAST_CHUNK], "it died"),
        ([EVENT_STREAM, chunk(event({"choices": [{"text": "a"}]})), LAST_CHUNK], "the stream ended before"),
        ([EVENT_STREAM, chunk(BODY), CLOSE], "the connection was closed before the answer's end"),
        ([EVENT_STREAM, chunk(BODY)[:-9], CLOSE], "the connection was closed before the answer's end"),
        ([CLOSE], "the connection was closed without an answer"),
        ([b"SSH-2.0-OpenSSH\r\n"], "what came is not HTTP"),
        ([EVENT_STREAM, b"zz\r\n"], "what came is not HTTP"),
        ([HANG], "no answer within 0.2 s"),
        ([EVENT_STREAM, chunk(event({"choices": [{"text": "a"}]})), HANG], "no answer within 0.2 s"),
    ],
)
def test_what_goes_wrong_is_said(pieces: list[Any], says: str) -> None:
    with answering(lambda body: pieces) as server, pytest.raises(Failure, match=says):
        ask(server.url, timeout=0.2)


def test_after_a_failure_the_next_request_goes_well() -> None:
    answers = iter([[EVENT_STREAM, HANG], None])

    def once(body: dict[str, Any]) -> Any:
        return next(answers) or tokens(body)

    async def go(url: str) -> Answer:
        client = Client(contact(url, timeout=0.2))
        with pytest.raises(Failure):
            await client.ask("one", 4)
        answer = await client.ask("one", 4)
        client.close()
        return answer

    with answering(once) as server:
        assert asyncio.run(go(server.url)).output_tokens == 4


def test_a_server_is_met_by_its_first_model() -> None:
    with answering() as server:
        known = met(server.url)
    assert (known.model, known.exactness) == ("the-model", "ignore_eos")
    assert server.bodies[0]["model"] == "the-model"


def test_a_named_model_is_not_asked_for() -> None:
    with answering(models=refusal("404 Not Found", "no route")) as server:
        assert met(server.url, model="mine").model == "mine"


def test_the_key_goes_with_every_request() -> None:
    with answering() as server:
        met(server.url, api_key="sécret")
    assert len(server.heads) == 2
    assert all("Authorization: Bearer sécret\r\n" in head for head in server.heads)


@pytest.mark.parametrize(
    ("unknown", "exactness"),
    [({"ignore_eos"}, "generation_config"), ({"min_tokens", "generation_config"}, "none")],
)
@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable"])
def test_fields_that_a_server_refuses_are_left_out(unknown: set[str], exactness: str, status: str) -> None:
    def strict(body: dict[str, Any]) -> Any:
        return [refusal(status, "unknown")] if unknown & body.keys() else tokens(body)

    with answering(strict) as server:
        assert met(server.url).exactness == exactness
    assert not unknown & server.bodies[-1].keys()


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (whole({"data": []}), "/models has none; name one with --model"),
        (whole({"object": "list"}), "/models has none; name one with --model"),
        (whole(b"<html>"), "/models has none; name one with --model"),
        (refusal("404 Not Found", "no route"), "HTTP 404: no route for /models; name one with --model"),
        (refusal("401 Unauthorized", "wrong key"), "HTTP 401: wrong key$"),
    ],
)
def test_a_server_that_lists_no_model_needs_a_name(models: bytes, says: str) -> None:
    with answering(models=models) as server, pytest.raises(UserError, match=says):
        met(server.url)


def test_a_server_that_refuses_plain_requests_is_told() -> None:
    with (
        answering(lambda body: [refusal("400 Bad Request", "no such model")]) as server,
        pytest.raises(UserError, match=r"^peer \(http://127.*/v1\): HTTP 400: no such model$"),
    ):
        met(server.url)


@pytest.mark.parametrize("manner", [{}, {"model": "m"}])
def test_a_server_that_is_not_there_is_told(manner: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^peer \(http://127.0.0.1:1/v1\): .*(refused|failed)"):
        met("http://127.0.0.1:1", **manner)
