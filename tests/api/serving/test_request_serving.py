"""A route of a plugin generates under everything that holds for the server's own routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse
from msgspec import Struct
from support.api_fakes import COMPLETION_SCOPE, Recorder, app_of, ask, backend_of
from support.route_plugins import Failure, Piece, Said, Say, SayEncoder, say_route, server_with_routes

from fllm.errors import BackendUnavailable, RequestError
from fllm.events import Finished, Text
from fllm.requests.chat import ChatMessage, ChatRequest
from fllm.serving import (
    DATA_EVENTS,
    JSON_LINES,
    LIMITED,
    NAMED_EVENTS,
    USES_ENGINE,
    ErrorInfo,
    Framing,
    Outcome,
    Serving,
    error_body,
)
from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import AppState
from fllm_api.config import RateLimits
from fllm_api.serving import responses


def a_saying_server(ends: list[Outcome], **parts: Any) -> AppState:
    return server_with_routes(lambda _: [say_route(ends)], **parts)


def say(server: AppState, **body: Any) -> Any:
    return ask(server, "POST", "/say", json={"text": "Hi", **body})


def test_a_whole_response_is_the_fold_of_the_stream() -> None:
    ends: list[Outcome] = []
    server = a_saying_server(ends)
    assert say(server).json() == {"text": "ab", "tokens": 3, "first": "Start"}
    streamed = say(server, stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    pieces = [event.split("\n") for event in streamed.text.split("\n\n")[:-1]]
    assert [name for name, _ in pieces] == ["event: start", "event: piece", "event: piece", "event: end"]
    assert [json.loads(data.removeprefix("data: ")).get("text") for _, data in pieces[1:3]] == ["a", "b"]
    assert ends == ["complete", "complete"]


def test_collectors_and_limits_see_the_route() -> None:
    recorder = Recorder()
    server = a_saying_server([], collectors=[recorder], config={"limits": RateLimits(tokens_per_minute=2)})
    assert say(server).status_code == 200
    [request] = recorder.requests
    assert (request.path, request.generated_tokens, request.finish_reasons) == ("/say", 3, ("stop",))
    refused = say(server)
    assert refused.status_code == 429
    assert (refused.json()["type"], refused.json()["status"]) == ("error", 429)


def test_errors_have_the_envelope_of_the_route() -> None:
    server = a_saying_server([], config={"keys": ApiKeys(["k"])})
    response = ask(server, "POST", "/say", json={"text": "Hi"}, headers={"x-request-id": "r1"})
    assert response.status_code == 401
    assert response.json()["request"] == "r1"
    key = {"authorization": "Bearer k"}
    assert ask(server, "POST", "/say", content=b"{", headers=key).json()["status"] == 415
    invalid = ask(server, "POST", "/say", json={"text": 1}, headers=key)
    assert (invalid.status_code, "`text`" in invalid.json()["reason"]) == (400, True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_ends_a_stream_in_the_words_of_the_encoder(stream: bool) -> None:
    ends: list[Outcome] = []
    server = a_saying_server(ends)
    backend = backend_of(server)
    backend.fails_after, backend.failure = 1, BackendUnavailable("gone")
    response = say(server, stream=stream)
    assert ends == ["error"]
    if stream:
        assert response.text.endswith(
            'event: error\ndata: {"type":"error","status":0,"reason":"gone","request":""}\n\n'
        )
    else:
        assert (response.status_code, response.json()["reason"]) == (503, "gone")


@pytest.mark.parametrize("stream", [False, True])
def test_what_can_not_be_stored_is_not_acknowledged(stream: bool) -> None:
    def full(outcome: Outcome) -> None:
        if outcome == "complete":
            raise BackendUnavailable("the disk is full")

    server = server_with_routes(lambda _: [say_route([], full)])
    response = say(server, stream=stream)
    assert "event: end" not in response.text
    assert "the disk is full" in response.text
    assert response.status_code == (200 if stream else 503)


class SilentEncoder(SayEncoder):
    """Can't report an error."""

    def error(self, error: ErrorInfo) -> list[Failure]:
        raise ValueError("secret")


class UnfoldedEncoder(SayEncoder):
    """Can't make a whole response."""

    def fold(self, chunks: Sequence[Any]) -> Said:
        raise ValueError("secret")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("encoder", [SayEncoder, SilentEncoder])
def test_a_failure_that_can_not_be_reported_is_still_the_failure(
    encoder: type[SayEncoder], stream: bool
) -> None:
    def full(outcome: Outcome) -> None:
        raise OSError("the disk is full")

    ends: list[Outcome] = []
    server = server_with_routes(lambda _: [say_route(ends, full, encoder)])
    backend = backend_of(server)
    backend.fails_after, backend.failure = 1, BackendUnavailable("gone")
    response = say(server, stream=stream)
    assert (ends, response.status_code) == (["error"], 200 if stream else 503)
    assert '"reason":"gone"' in response.text


def test_a_response_that_can_not_be_made_is_not_complete() -> None:
    ends: list[Outcome] = []
    server = server_with_routes(lambda _: [say_route(ends, encoder=UnfoldedEncoder)])
    assert (say(server).status_code, ends) == (500, ["error"])


@pytest.mark.parametrize("stream", [False, True])
def test_what_waits_at_the_end_does_not_keep_a_request(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "END_SECONDS", 0.01)

    @post("/say", status_code=200, opt={**USES_ENGINE})
    async def wait(data: JSONBody[Say], server: NamedDependency[Serving]) -> ASGIResponse:
        generation = await server.read_chat(ChatRequest(messages=[ChatMessage(role="user", content="Hi")]))
        response: ASGIResponse = server.respond(
            generation, SayEncoder(), stream=data.stream, on_end=lambda _: asyncio.sleep(60)
        )
        return response

    response = say(server_with_routes(lambda _: [wait]), stream=stream)
    assert "the server failed" in response.text
    assert response.status_code == (200 if stream else 500)


def test_an_error_body_that_fails_is_that_of_the_server() -> None:
    def fail(status: int, error: ErrorInfo, request_id: str) -> Failure:
        raise ValueError("secret")

    @post("/say", status_code=200, opt={**USES_ENGINE, **error_body(fail)})
    async def refuse(data: JSONBody[Say]) -> None:
        raise RequestError("no", param="text")

    response = say(server_with_routes(lambda _: [refuse]))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "text")


def test_a_request_that_generates_twice_is_charged_for_both() -> None:
    @post("/say", status_code=200, opt={**USES_ENGINE})
    async def twice(data: JSONBody[Say], server: NamedDependency[Serving]) -> list[int]:
        chat = ChatRequest(messages=[ChatMessage(role="user", content=data.text)])
        generations = [await server.read_chat(chat) for _ in range(2)]
        await asyncio.gather(*map(server.whole, generations))
        await server.whole(generations[0])
        return [each.prompt_tokens for each in generations]

    recorder = Recorder()
    limits = RateLimits(tokens_per_minute=600)
    server = server_with_routes(lambda _: [twice], collectors=[recorder], config={"limits": limits})
    assert say(server).json() == [19, 19]
    [request] = recorder.requests
    assert (request.prompt_tokens, request.generated_tokens) == (57, 9)
    assert len({prompt.request_id for prompt in backend_of(server).prompts}) == 3
    remaining = int(say(server).headers["x-ratelimit-remaining-tokens"])
    assert 600 - 2 * 57 - 2 * 9 <= remaining <= 600 - 2 * 57


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_aborts_the_generation(stream: bool) -> None:
    ends: list[Outcome] = []
    server = a_saying_server(ends)
    backend = backend_of(server)
    backend.stalls_after = 1
    body = json.dumps({"text": "Hi", "stream": stream}).encode()

    async def go() -> None:
        left = asyncio.Event()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {**COMPLETION_SCOPE, "path": "/say", "raw_path": b"/say"}
        asking = asyncio.create_task(app_of(server)(scope, receive, send))  # type: ignore[arg-type]
        while not backend.prompts:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        left.set()
        await asking

    asyncio.run(go())
    assert (len(backend.aborted), ends) == (1, ["abort"])


def test_a_handler_can_use_the_whole_outputs_and_the_tokens_of_a_prompt() -> None:
    @post("/count", status_code=200, opt={**USES_ENGINE})
    async def count(data: JSONBody[Say], server: NamedDependency[Serving]) -> dict[str, Any]:
        request = ChatRequest(messages=[ChatMessage(role="user", content=data.text)])
        generation = await server.read_chat(request)
        [output] = await server.whole(generation)
        return {
            "prompt": await server.render_chat(request),
            "ids": await server.tokenize_chat(request) == generation.request.prompts[0],
            "tokens": generation.prompt_tokens,
            "text": "".join(event.text for event in output.events if isinstance(event, Text)),
            "reason": [event.reason for event in output.events if isinstance(event, Finished)],
            "plain": len(await server.tokenize("x" * 9000)),
            "owner": server.owner,
        }

    server = server_with_routes(lambda _: [count])
    assert ask(server, "POST", "/count", json={"text": "Hi"}).json() == {
        "prompt": "<user>Hi<assistant>",
        "ids": True,
        "tokens": 19,
        "text": "ab",
        "reason": ["stop"],
        "plain": 9000,
        "owner": "",
    }


def test_a_route_without_generation_counts_against_the_limits_only() -> None:
    @post("/tokens", status_code=200, opt={**LIMITED})
    async def tokens(data: JSONBody[Say], server: NamedDependency[Serving]) -> int:
        return len(await server.tokenize(data.text))

    recorder = Recorder()
    limits = RateLimits(tokens_per_minute=2)
    server = server_with_routes(lambda _: [tokens], collectors=[recorder], config={"limits": limits})
    statuses = [ask(server, "POST", "/tokens", json={"text": "Hi"}).status_code for _ in range(2)]
    assert statuses == [200, 429]
    assert not recorder.requests


def test_a_route_that_generates_without_limits_is_an_error_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @post("/free", status_code=200)
    async def free(data: JSONBody[Say], server: NamedDependency[Serving]) -> None:
        await server.whole(
            await server.read_chat(ChatRequest(messages=[ChatMessage(role="user", content=data.text)]))
        )

    assert ask(server_with_routes(lambda _: [free]), "POST", "/free", json={"text": "Hi"}).status_code == 500
    assert "a route that generates needs opt=fllm.USES_ENGINE" in caplog.text


def test_a_chat_without_messages_is_an_error_of_the_client() -> None:
    @post("/none", status_code=200, opt={**USES_ENGINE})
    async def none(server: NamedDependency[Serving]) -> None:
        await server.read_chat(ChatRequest(messages=[]))

    @get("/none", opt={**LIMITED})
    async def rendered(server: NamedDependency[Serving]) -> str:
        return await server.render_chat(ChatRequest(messages=[]))

    server = server_with_routes(lambda _: [none, rendered])
    for method in ("GET", "POST"):
        response = ask(server, method, "/none")
        assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize(
    ("framing", "failure"),
    [
        (NAMED_EVENTS, "event: error\ndata: {}\n\n"),
        (DATA_EVENTS, "data: {}\n\ndata: [DONE]\n\n"),
        (JSON_LINES, "{}\n"),
    ],
)
def test_a_stream_from_elsewhere_that_fails_ends_with_the_error(framing: Framing, failure: str) -> None:
    async def chunks() -> AsyncGenerator[list[Struct]]:
        yield [Piece("a")]
        raise RequestError("late", param="text")

    @post("/say", status_code=200, opt={**USES_ENGINE})
    async def stream(data: JSONBody[Say], server: NamedDependency[Serving]) -> ASGIResponse:
        response: ASGIResponse = server.stream(chunks(), framing)
        return response

    body = '{"error":{"message":"late","type":"invalid_request_error","param":"text","code":null}}'
    text = say(server_with_routes(lambda _: [stream])).text
    assert text.endswith(failure.replace("{}", body))
    assert '"text":"a"' in text
