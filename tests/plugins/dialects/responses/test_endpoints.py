"""The endpoints over ASGI: whole and streamed, and read by OpenAI's library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError
from pydantic import BaseModel
from support.api_fakes import (
    FakeReasoningParser,
    FakeToolCallParser,
    a_server,
    app_of,
    ask,
    backend_of,
    chat,
    error_of,
)
from support.stored_responses import responses_server

from fllm_api.app_state import AppState

T = TypeVar("T")
PLUGINS = responses_server(None).plugins
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
PATCH = {"type": "custom", "name": "patch"}
TURN = ("h", "m|", "Le", "t me.", "[f:{", '"a":1}]', "[patch:{", '"input":"+', 'x"}]')


def server_of(*words: str, **parts: Any) -> AppState:
    """Return a server that generates these words, with the routes and both parsers."""
    parsers = {"reasoning": FakeReasoningParser, "tools": FakeToolCallParser}
    return a_server(words, plugins=PLUGINS, **(parsers | parts))


HELLO = a_server(plugins=PLUGINS)
AGENT = server_of(*TURN)


def respond(server: AppState = HELLO, given: Any = "Hi", **body: Any) -> httpx.Response:
    """Send a request for a response."""
    return ask(server, "POST", "/v1/responses", json={"model": "m", "input": given, **body})


def streamed(server: AppState = HELLO, **body: Any) -> list[dict[str, Any]]:
    """Return the events of a stream, after checking that their names are their types."""
    response = respond(server, stream=True, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *blocks, end = response.text.split("\n\n")
    assert end == ""
    events = []
    for block in blocks:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def with_sdk(server: AppState, use: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
    """Return what OpenAI's library gets from the server."""

    async def go() -> T:
        transport = httpx.ASGITransport(app_of(server))
        async with httpx.AsyncClient(transport=transport) as http:
            return await use(AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=http))

    return asyncio.run(go())


def without_ids(value: Any) -> Any:
    """Return a response without what each request has of its own."""
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in ("id", "call_id")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value


def test_a_response_tells_what_holds() -> None:
    body = respond(metadata={"k": "v"}, instructions="Be brief.", user="u", store=False).json()
    assert body["id"].startswith("resp_")
    assert body["output"][0]["content"][0]["text"] == "Hello world!"
    assert {key: value for key, value in body.items() if key not in ("id", "output", "created_at")} == {
        "object": "response",
        "status": "completed",
        "background": False,
        "completed_at": body["completed_at"],
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {"k": "v"},
        "model": "org/fake",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 40,
        },
        "user": "u",
    }


@pytest.mark.parametrize("body", [{}, {"max_output_tokens": 4}, {"parallel_tool_calls": False}])
def test_a_stream_ends_with_the_whole_response(body: dict[str, Any]) -> None:
    body = {"tools": [TOOL, PATCH], **body}
    whole = respond(AGENT, **body).json()
    last = streamed(AGENT, **body)[-1]
    assert last["type"] == f"response.{whole['status']}"
    assert without_ids(last["response"]) | {"created_at": 0, "completed_at": 0} == without_ids(whole) | {
        "created_at": 0,
        "completed_at": 0,
    }


def test_reasoning_text_and_calls_are_items() -> None:
    output = respond(AGENT, tools=[TOOL, PATCH]).json()["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "custom_tool_call"]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert (output[2]["name"], output[2]["arguments"]) == ("f", '{"a":1}')
    assert (output[3]["name"], output[3]["input"]) == ("patch", "+x")
    assert len({output[2]["call_id"], output[3]["call_id"]}) == 2


def test_chat_gives_the_same_text_calls_and_usage() -> None:
    function = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    server = server_of("h", "m|", "Let me.", '[f:{"a":1}]')
    other = chat(server, tools=[function]).json()
    mine = respond(server, tools=[TOOL]).json()
    message, usage = other["choices"][0]["message"], other["usage"]
    reasoning, text, call = mine["output"]
    assert reasoning["content"][0]["text"] == message["reasoning_content"]
    assert text["content"][0]["text"] == message["content"]
    assert call["arguments"] == message["tool_calls"][0]["function"]["arguments"]
    assert mine["usage"]["input_tokens"] == usage["prompt_tokens"]
    assert mine["usage"]["output_tokens"] == usage["completion_tokens"]
    details = usage["completion_tokens_details"]
    assert mine["usage"]["output_tokens_details"]["reasoning_tokens"] == details["reasoning_tokens"]


def test_the_maximum_ends_a_response_as_incomplete() -> None:
    body = respond(max_output_tokens=2).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["status"] == "incomplete"
    assert body["output"][0]["content"][0]["text"] == "Hello world"


def test_log_probabilities_are_those_of_the_text() -> None:
    include = ["message.output_text.logprobs"]
    body = respond(include=include, top_logprobs=1).json()
    logprobs = body["output"][0]["content"][0]["logprobs"]
    assert [entry["token"] for entry in logprobs][:3] == ["Hello", " world", "!"]
    assert logprobs[0]["logprob"] == -0.25
    assert [top["token"] for top in logprobs[0]["top_logprobs"]] == ["Hello"]
    deltas = [event for event in streamed(include=include) if event["type"] == "response.output_text.delta"]
    assert [entry["token"] for event in deltas for entry in event["logprobs"]] == ["Hello", " world", "!"]


def test_the_prompt_has_the_conversation() -> None:
    server = server_of("ok")
    items = [
        {"role": "user", "content": "a"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
    ]
    respond(server, items, instructions="i")
    prompt = server.tokenizer.decode(
        list(backend_of(server).prompts[-1].token_ids), skip_special_tokens=False
    )
    assert prompt.startswith("<system>i<user>a<assistant>")
    assert prompt.endswith("<tool>r<assistant>")


def test_an_assistants_last_message_is_not_continued() -> None:
    server = server_of("ok")
    respond(server, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    prompt = server.tokenizer.decode(
        list(backend_of(server).prompts[-1].token_ids), skip_special_tokens=False
    )
    assert prompt == "<user>a<assistant>b<assistant>"


def test_input_tokens_are_those_of_a_response() -> None:
    body = {"input": [{"role": "user", "content": "Hi"}], "instructions": "x", "tools": [TOOL]}
    counted = ask(HELLO, "POST", "/v1/responses/input_tokens", json=body)
    used = ask(HELLO, "POST", "/v1/responses", json=body).json()["usage"]["input_tokens"]
    assert counted.json() == {"input_tokens": used, "object": "response.input_tokens"}


def test_a_conversation_that_is_too_long_is_an_error_or_is_truncated() -> None:
    server = server_of("ok", card={"max_model_len": 60})
    items = [
        {"role": role, "content": letter * 10}
        for role, letter in [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    ]
    error = error_of(respond(server, items))
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    body = respond(server, items, truncation="auto").json()
    assert (body["status"], body["truncation"]) == ("completed", "auto")
    prompt = server.tokenizer.decode(
        list(backend_of(server).prompts[-1].token_ids), skip_special_tokens=False
    )
    assert prompt == f"<system>{'s' * 10}<user>{'c' * 10}<assistant>"
    error = error_of(respond(server, [{"role": "user", "content": "x" * 80}], truncation="auto"))
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"metadata": {"k": "v" * 513}}, "metadata[...]"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
            "input[0].content[0].type",
        ),
    ],
)
def test_bad_input_has_openais_envelope(body: dict[str, Any], param: str) -> None:
    response = ask(HELLO, "POST", "/v1/responses", json={"input": "Hi", **body})
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_a_failure_in_a_stream_is_an_error_and_a_failed_response() -> None:
    server = a_server(plugins=PLUGINS)
    backend_of(server).fails_after = 1
    *_, error, last = streamed(server)
    assert (error["type"], last["type"]) == ("error", "response.failed")
    assert last["response"]["error"]["code"] == "server_error"
    assert "secret" not in json.dumps([error, last])
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_openais_library_streams_the_events_and_the_final_response() -> None:
    async def use(client: AsyncOpenAI) -> Any:
        async with client.responses.stream(model="m", input="Hi", tools=[TOOL, PATCH]) as stream:
            types = [event.type async for event in stream]
            return types, await stream.get_final_response()

    types, response = with_sdk(AGENT, use)
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert response.output_text == "Let me."
    assert [item.type for item in response.output] == [
        "reasoning",
        "message",
        "function_call",
        "custom_tool_call",
    ]
    assert response.output[2].arguments == '{"a":1}'


def test_openais_library_parses_structured_output() -> None:
    class Answer(BaseModel):
        a: int

    async def use(client: AsyncOpenAI) -> Any:
        response = await client.responses.parse(model="m", input="Hi", text_format=Answer)
        return response.output_parsed

    server = a_server(('{"a":', " 1}"), plugins=PLUGINS, card={"grammar": "fake"})
    assert with_sdk(server, use) == Answer(a=1)


def test_openais_library_raises_for_bad_input() -> None:
    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(BadRequestError, match="'web_search' are not supported"):
            await client.responses.create(model="m", input="Hi", tools=[{"type": "web_search"}])

    with_sdk(HELLO, use)
