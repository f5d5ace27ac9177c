"""The client, with good and bad servers."""

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
    chunk,
    error_response,
    event,
    full_response,
    scripted_server,
    tokens,
)

from fllm.errors import UserError
from fllm_bench.client import Client, ConnectedTarget, RequestFailed, connect
from fllm_bench.response_reader import Completion
from fllm_bench.target import RequestOptions, parse_target

BODY = event({"choices": [{"text": " a"}]}) + event({"choices": [{"finish_reason": "length"}]})


def client_of(url: str, **options: Any) -> Client:
    return Client(
        ConnectedTarget(
            target=parse_target(url), options=RequestOptions(**options), model="m", eos_control="ignore_eos"
        )
    )


def complete(url: str, times: int = 1, *, stream: bool = True, **options: Any) -> list[Completion]:
    """Several requests, one after another, over one client."""

    async def go() -> list[Completion]:
        async with client_of(url, **options) as client:
            return [await client.complete("one two three", 4, stream=stream) for _ in range(times)]

    return asyncio.run(go())


def connected_to(url: str, **options: Any) -> ConnectedTarget:
    return asyncio.run(connect(parse_target(url, "peer"), RequestOptions(**options), "one two"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("chat", [True, False])
def test_tokens_of_a_response_are_counted(chat: bool, stream: bool) -> None:
    with scripted_server() as server:
        [completion] = complete(server.url, chat=chat, stream=stream)
    assert (completion.prompt_tokens, completion.output_tokens) == (3, 4)
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
    with scripted_server() as server:
        assert len(complete(server.url, 3)) == 3
    assert server.connections == 1


def test_requests_at_once_have_a_connection_each() -> None:
    async def go(url: str) -> None:
        async with client_of(url) as client:
            for _ in range(2):
                await asyncio.gather(*(client.complete("one", 4) for _ in range(5)))

    with scripted_server() as server:
        asyncio.run(go(server.url))
    assert server.connections == 5


@pytest.mark.parametrize("size", [1, 2, 5, 60])
def test_bytes_may_come_in_any_pieces(size: int) -> None:
    def crumbs(body: dict[str, Any]) -> Iterator[bytes]:
        data = b"".join(tokens(body))
        yield from (data[i : i + size] for i in range(0, len(data), size))

    with scripted_server(crumbs) as server:
        assert complete(server.url)[0].output_tokens == 4


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"],
)
def test_a_body_may_end_with_its_connection(head: bytes) -> None:
    with scripted_server(lambda body: [head, BODY, CLOSE]) as server:
        assert [each.output_tokens for each in complete(server.url, 2)] == [1, 1]
    assert server.connections == 2


@pytest.mark.parametrize("pause", [0, 0.0005, 0.001, 0.0015, 0.05])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_server_may_close_between_requests(loop_factory: Any, pause: float) -> None:
    async def go(url: str) -> None:
        async with client_of(url) as client:
            for _ in range(5):
                await client.complete("one", 4)
                await asyncio.sleep(pause)

    closing = scripted_server(lambda body: [*tokens(body), CLOSE])
    with closing as server, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(go(server.url))
    assert (server.connections, len(server.bodies)) == (5, 5)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([error_response("400 Bad Request", "no such field")], "HTTP 400: no such field"),
        ([error_response("500 Oops", "out of memory")], "HTTP 500: out of memory"),
        ([full_response(b"<html>gone</html>", "502 Bad Gateway")], "HTTP 502: <html>gone</html>"),
        ([EVENT_STREAM, chunk(event({"error": {"message": "it died"}})), LAST_CHUNK], "it died"),
        ([EVENT_STREAM, chunk(event({"choices": [{"text": "a"}]})), LAST_CHUNK], "the stream ended before"),
        ([EVENT_STREAM, chunk(BODY), CLOSE], "the connection was closed before the response was complete"),
        (
            [EVENT_STREAM, chunk(BODY)[:-9], CLOSE],
            "the connection was closed before the response was complete",
        ),
        ([CLOSE], "the connection was closed without a response"),
        ([b"SSH-2.0-OpenSSH\r\n"], "invalid HTTP response"),
        ([EVENT_STREAM, b"zz\r\n"], "no response within 0.2 s"),
        ([HANG], "no response within 0.2 s"),
        ([EVENT_STREAM, chunk(event({"choices": [{"text": "a"}]})), HANG], "no response within 0.2 s"),
    ],
)
def test_the_error_says_what_went_wrong(pieces: list[Any], message: str) -> None:
    with scripted_server(lambda body: pieces) as server, pytest.raises(RequestFailed, match=message):
        complete(server.url, timeout=0.2)


def test_after_a_failure_the_next_request_goes_well() -> None:
    responses = iter([[EVENT_STREAM, HANG], None])

    def once(body: dict[str, Any]) -> Any:
        return next(responses) or tokens(body)

    async def go(url: str) -> Completion:
        async with client_of(url, timeout=0.2) as client:
            with pytest.raises(RequestFailed):
                await client.complete("one", 4)
            return await client.complete("one", 4)

    with scripted_server(once) as server:
        assert asyncio.run(go(server.url)).output_tokens == 4


def test_without_a_name_the_first_model_is_used() -> None:
    with scripted_server() as server:
        known = connected_to(server.url)
    assert (known.model, known.eos_control) == ("the-model", "ignore_eos")
    assert server.bodies[0]["model"] == "the-model"


def test_a_given_model_is_not_looked_up() -> None:
    with scripted_server(models=error_response("404 Not Found", "no route")) as server:
        assert connected_to(server.url, model="mine").model == "mine"


def test_the_key_goes_with_every_request() -> None:
    with scripted_server() as server:
        connected_to(server.url, api_key="sécret")
    assert len(server.heads) == 2
    assert all("Authorization: Bearer sécret\r\n" in head for head in server.heads)


@pytest.mark.parametrize(
    ("unknown", "eos_control"),
    [({"ignore_eos"}, "generation_config"), ({"min_tokens", "generation_config"}, "none")],
)
@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable"])
def test_fields_that_a_server_refuses_are_left_out(unknown: set[str], eos_control: str, status: str) -> None:
    def strict(body: dict[str, Any]) -> Any:
        return [error_response(status, "unknown")] if unknown & body.keys() else tokens(body)

    with scripted_server(strict) as server:
        assert connected_to(server.url).eos_control == eos_control
    assert not unknown & server.bodies[-1].keys()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (full_response({"data": []}), "/models lists no model; name one with --model"),
        (full_response({"object": "list"}), "/models lists no model; name one with --model"),
        (full_response(b"<html>"), "/models lists no model; name one with --model"),
        (
            error_response("404 Not Found", "no route"),
            "HTTP 404: no route for /models; name a model with --model",
        ),
        (error_response("401 Unauthorized", "wrong key"), "HTTP 401: wrong key$"),
    ],
)
def test_a_server_that_lists_no_model_needs_a_name(models: bytes, message: str) -> None:
    with scripted_server(models=models) as server, pytest.raises(UserError, match=message):
        connected_to(server.url)


def test_a_server_that_rejects_plain_requests_is_an_error() -> None:
    with (
        scripted_server(lambda body: [error_response("400 Bad Request", "no such model")]) as server,
        pytest.raises(UserError, match=r"^peer \(http://127.*/v1\): HTTP 400: no such model$"),
    ):
        connected_to(server.url)


@pytest.mark.parametrize("options", [{}, {"model": "m"}])
def test_an_unreachable_server_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^peer \(http://127.0.0.1:1/v1\): .*(refused|failed)"):
        connected_to("http://127.0.0.1:1", **options)
