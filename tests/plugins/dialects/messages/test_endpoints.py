"""The endpoints over ASGI, on a backend whose output is known; Anthropic's own client reads the responses."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
import httpx2
import pytest
from anthropic import AsyncAnthropic, BadRequestError
from anthropic.types import MessageParam
from support.api_fakes import (
    EOS,
    FakeReasoningParser,
    FakeToolCallParser,
    a_server,
    app_of,
    ask,
    backend_of,
    chat,
)
from support.dialect_servers import dialect_plugins
from support.image_fakes import PARTS, TEXT_ONLY, an_image_server

from fllm import BackendError, BackendUnavailable
from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import AppState
from fllm_api.config import RateLimits

T = TypeVar("T")
HI: list[MessageParam] = [{"role": "user", "content": "Hi"}]
TOOLS: list[Any] = [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}]
OUTPUT = ("Hm", ".", "|", "Let me", " look ☀", '[f:{"a": "', "äö", '"}]', "[g:{}]", EOS)


def server_of(*words: str, **parts: Any) -> AppState:
    return a_server(words or ("Hello", " world", "!"), plugins=dialect_plugins("messages"), **parts)


PLAIN = server_of()
THINKS_AND_CALLS = server_of(*OUTPUT, reasoning=FakeReasoningParser, tools=FakeToolCallParser)


def send(server: AppState = PLAIN, path: str = "/v1/messages", **body: Any) -> httpx.Response:
    body = {"model": "m", "max_tokens": 20, "messages": HI, **body}
    return ask(server, "POST", f"{path}?beta=true", json={k: v for k, v in body.items() if v is not ...})


def message(server: AppState = PLAIN, **body: Any) -> dict[str, Any]:
    response = send(server, **body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error, after checking the envelope."""
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}, body
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"] == response.headers["x-request-id"]
    assert set(body["error"]) - {"details"} == {"type", "message"}
    error: dict[str, Any] = body["error"]
    return error


def with_sdk(server: AppState, use: Callable[[AsyncAnthropic], Awaitable[T]]) -> T:
    """Return what a function gets with Anthropic's client."""

    @asynccontextmanager
    async def client() -> AsyncGenerator[AsyncAnthropic]:
        transport = httpx2.ASGITransport(app_of(server))
        async with httpx2.AsyncClient(transport=transport) as http:
            yield AsyncAnthropic(base_url="http://test", api_key="k", http_client=http, max_retries=0)

    async def go() -> T:
        async with client() as sdk:
            return await use(sdk)

    return asyncio.run(go())


def test_a_message() -> None:
    found = message()
    assert found.pop("id").startswith("msg_")
    assert found == {
        "type": "message",
        "role": "assistant",
        "model": "org/fake",
        "content": [{"type": "text", "text": "Hello world!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len("<user>Hi<assistant>") - 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 1,
            "output_tokens": 4,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


def test_a_stream_has_named_events() -> None:
    response = send(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.strip().split("\n\n")
    names = [block.splitlines()[0].removeprefix("event: ") for block in blocks]
    data = [json.loads(block.splitlines()[1].removeprefix("data: ")) for block in blocks]
    assert [each["type"] for each in data] == names
    assert names == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert data[0]["message"]["usage"]["cache_read_input_tokens"] == 1


def test_the_sdk_reads_messages_and_streams_alike() -> None:
    request: Any = {
        "model": "m",
        "max_tokens": 99,
        "messages": HI,
        "tools": TOOLS,
        "thinking": {"type": "adaptive"},
    }

    async def both(sdk: AsyncAnthropic) -> tuple[Any, Any, str]:
        whole = await sdk.messages.create(**request)
        async with sdk.messages.stream(**request) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            return whole, await stream.get_final_message(), text

    whole, streamed, text = with_sdk(THINKS_AND_CALLS, both)
    assert text == "Let me look ☀"
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert whole.content[0].thinking == "Hm."
    assert whole.content[2].input == {"a": "äö"}
    assert whole.stop_reason == "tool_use"
    assert all(block.id.startswith("toolu_") for block in whole.content[2:])
    ids = {"id": ..., "_request_id": ...}
    seen = [_without_ids(each.model_dump(exclude_unset=True) | ids) for each in (whole, streamed)]
    assert {**seen[0], "stop_details": None} == {**seen[1], "stop_details": None}
    assert whole._request_id


def _without_ids(value: Any) -> Any:
    """Return the content without the values of ids, which are random."""
    if isinstance(value, dict):
        return {key: ... if key == "id" else _without_ids(each) for key, each in value.items()}
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


def test_a_response_can_be_sent_back() -> None:
    async def twice(sdk: AsyncAnthropic) -> Any:
        request: Any = {"model": "m", "max_tokens": 99, "tools": TOOLS}
        first = await sdk.messages.create(messages=HI, **request)
        results: Any = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "42"}
            for block in first.content
            if block.type == "tool_use"
        ]
        history: Any = [*HI, first.to_param(), {"role": "user", "content": results}]
        return await sdk.messages.create(messages=history, **request)

    assert with_sdk(THINKS_AND_CALLS, twice).stop_reason == "tool_use"


@pytest.mark.parametrize("stream", [False, True])
def test_chat_has_the_same_text_calls_and_usage(stream: bool) -> None:
    functions = [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": TOOLS[0]["input_schema"]},
        }
    ]
    expected = chat(THINKS_AND_CALLS, tools=functions).json()
    response = send(THINKS_AND_CALLS, tools=TOOLS, max_tokens=99, stream=stream)
    if stream:
        blocks = [block.splitlines() for block in response.text.strip().split("\n\n")]
        data = [json.loads(lines[1].removeprefix("data: ")) for lines in blocks]
        deltas = [each["delta"] for each in data if each["type"] == "content_block_delta"]
        texts = {
            kind: "".join(delta.get(kind, "") for delta in deltas)
            for kind in ("thinking", "text", "partial_json")
        }
        usage = data[-2]["usage"]
    else:
        content = response.json()["content"]
        texts = {
            "thinking": content[0]["thinking"],
            "text": content[1]["text"],
            "partial_json": '{"a": "äö"}{}',
        }
        assert [block["input"] for block in content[2:]] == [{"a": "äö"}, {}]
        usage = response.json()["usage"]
    [choice] = expected["choices"]
    calls = [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]
    assert texts == {
        "thinking": choice["message"]["reasoning_content"],
        "text": choice["message"]["content"],
        "partial_json": "".join(calls),
    }
    assert usage["output_tokens"] == expected["usage"]["completion_tokens"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == expected["usage"]["prompt_tokens"]
    details = expected["usage"]["completion_tokens_details"]
    assert usage["output_tokens_details"]["thinking_tokens"] == details["reasoning_tokens"]


def test_tokens_are_counted_exactly() -> None:
    body: Any = {
        "system": [{"type": "text", "text": "Be brief ☀"}],
        "tools": TOOLS,
        "messages": [
            *HI,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"}]},
        ],
    }
    usage = message(**body)["usage"]
    asked = len(backend_of(PLAIN).prompts)
    counted = send(path="/v1/messages/count_tokens", max_tokens=..., **body)
    assert counted.json() == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
    assert len(backend_of(PLAIN).prompts) == asked


def test_a_final_message_of_the_assistant_is_continued() -> None:
    message(messages=[*HI, {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}])
    prompt = PLAIN.tokenizer.decode(backend_of(PLAIN).prompts[-1].token_ids, skip_special_tokens=False)
    assert prompt == "<user>Hi<assistant>It is"


def png(text: str) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(text.encode()).decode()}
    return {"type": "image", "source": source}


@pytest.mark.parametrize(
    ("template", "expected"), [(PARTS, ["a[(one)]", "b[(two)]"]), (TEXT_ONLY, ["a\n(one)", "b\n(two)"])]
)
def test_images_are_those_of_the_chat(template: str, expected: list[str]) -> None:
    server = an_image_server(template, parts={"plugins": dialect_plugins("messages")})
    results = [{"type": "text", "text": "b"}, png("two")]
    history = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, png("one")]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": results}]},
    ]
    message(server, messages=history, max_tokens=1)
    [prompt] = backend_of(server).prompts
    first, _, third, end = server.tokenizer.decode(prompt.token_ids, skip_special_tokens=False).split("|")
    assert [first, third.removeprefix("The function f returned:").lstrip(), end] == [*expected, ""]
    assert prompt.images == ("one", "two")
    counted = send(server, "/v1/messages/count_tokens", messages=history).json()
    assert counted == {"input_tokens": len(prompt.token_ids)}


def test_the_path_of_an_image_is_that_of_its_source() -> None:
    server = an_image_server(parts={"plugins": dialect_plugins("messages")})
    broken = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [broken]}
    url = {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}
    for block, path in (
        (result, "messages[0].content[0].content[0].source"),
        (url, "messages[0].content[0].source"),
    ):
        response = send(server, messages=[{"role": "user", "content": [block]}])
        assert response.status_code == 400
        assert path in error_of(response)["message"]


def test_a_stop_sequence_ends_the_message() -> None:
    found = message(stop_sequences=["or", "x"])
    assert found["content"] == [{"type": "text", "text": "Hello w"}]
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "or")


def test_the_maximum_ends_the_message() -> None:
    assert message(max_tokens=2)["stop_reason"] == "max_tokens"
    assert message(max_tokens=0)["content"] == []
    long = [{"role": "user", "content": "x" * 493}]
    assert message(max_tokens=99, messages=long)["stop_reason"] == "model_context_window_exceeded"


def test_disabled_thinking_is_left_out() -> None:
    found = message(THINKS_AND_CALLS, thinking={"type": "disabled"}, tools=TOOLS, max_tokens=99)
    assert [block["type"] for block in found["content"]] == ["text", "tool_use", "tool_use"]


def test_at_most_one_call() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    found = message(THINKS_AND_CALLS, tools=TOOLS, tool_choice=choice, max_tokens=99)
    assert [block["type"] for block in found["content"]] == ["thinking", "text", "tool_use"]


def test_the_model_of_a_budget_needs_no_reasoning_parser() -> None:
    assert message(thinking={"type": "enabled", "budget_tokens": 1024})["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"max_tokens": ...}, "`max_tokens`: Object missing required field"),
        ({"max_tokens": -1}, "`max_tokens`: Expected `int` >= 0"),
        ({"messages": []}, "`messages`"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "`messages[0].content[0].type`"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "`messages[0].content[0].text`"),
        ({"messages": [{"role": "robot", "content": ""}]}, "`messages[0].role`"),
        ({"temperature": 1.5}, "`temperature`"),
        ({"stop_sequences": [""]}, "`stop_sequences[0]`"),
        ({"stop_sequences": ["x" * 1000] * 20}, "`stop_sequences` has 20000 characters"),
        ({"tool_choice": {"type": "any"}}, "`tool_choice` requires `tools`"),
        ({"output_format": {"type": "json_schema", "schema": {}}}, "`output_format.schema` is not supported"),
        (
            {
                "system": "s",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "a"},
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": "AA"},
                            },
                        ],
                    }
                ],
            },
            "messages[0].content[1].type: content parts",
        ),
        (
            {"messages": [{"role": "user", "content": "x" * 600}]},
            "prompt is too long: 617 tokens > 511 maximum; this model's maximum context length is 512",
        ),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "`tools[0].type` 'bash_20250124'"),
    ],
)
def test_bad_requests_name_the_field(body: Any, words: str) -> None:
    response = send(**body)
    error = error_of(response)
    assert response.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


def test_the_error_for_a_thread_has_the_code_that_anthropics_sdks_look_for() -> None:
    error = error_of(send(thread={"type": "create"}))
    assert error["details"] == {"error_code": "thread_unsupported_request"}


@pytest.mark.parametrize(
    "body",
    [{"messages": []}, {"tools": [{"name": "f"}]}, {"tool_choice": {"type": "any"}}, {"thread": {"a": 1}}],
)
def test_what_is_no_request_is_not_counted(body: Any) -> None:
    response = send(path="/v1/messages/count_tokens", **body)
    assert (response.status_code, error_of(response)["type"]) == (400, "invalid_request_error")


def test_a_prompt_of_any_length_is_counted() -> None:
    body = {"messages": [{"role": "user", "content": "x" * 600}]}
    assert send(path="/v1/messages/count_tokens", **body).json()["input_tokens"] > 600


@pytest.mark.parametrize("depth", [100, 900, 950, 980, 995, 1100])
def test_a_deep_input_is_no_failure_of_the_server(depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    block = f'{{"type":"tool_use","id":"x","name":"f","input":{deep}}}'
    body = f'{{"max_tokens":1,"messages":[{{"role":"assistant","content":[{block}]}}]}}'
    response = ask(PLAIN, "POST", "/v1/messages", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400)


def test_errors_of_every_status_have_the_envelope() -> None:
    keyed = server_of(config={"keys": ApiKeys(["secret"])})
    assert _fails(keyed) == (401, "authentication_error")
    limited = server_of(config={"limits": RateLimits(tokens_per_minute=1)})
    assert send(limited).status_code == 200
    assert _fails(limited) == (429, "rate_limit_error")
    failing = server_of()
    backend_of(failing).fails_after = 0
    assert _fails(failing) == (500, "api_error")
    backend_of(failing).failure = BackendUnavailable("starting")
    assert _fails(failing) == (503, "overloaded_error")
    backend_of(failing).failure = BackendError("broken")
    assert _fails(failing) == (500, "api_error")
    small = server_of(config={"max_body_bytes": 100})
    assert _fails(small, system="x" * 100) == (413, "request_too_large")
    wrong = ask(PLAIN, "POST", "/v1/messages", content="x", headers={"content-type": "text/plain"})
    assert (wrong.status_code, error_of(wrong)["type"]) == (415, "invalid_request_error")
    broken = ask(PLAIN, "POST", "/v1/messages", content="{", headers={"content-type": "application/json"})
    assert (broken.status_code, error_of(broken)["type"]) == (400, "invalid_request_error")


def _fails(server: AppState, **body: Any) -> tuple[int, str]:
    response = send(server, **body)
    return response.status_code, error_of(response)["type"]


def test_a_stream_that_fails_ends_with_an_error() -> None:
    failing = server_of()
    backend_of(failing).fails_after = 1
    last = send(failing, stream=True).text.strip().split("\n\n")[-1].splitlines()
    assert last[0] == "event: error"
    assert json.loads(last[1].removeprefix("data: "))["error"]["type"] == "api_error"


def test_the_sdk_raises_its_own_errors() -> None:
    async def fail(sdk: AsyncAnthropic) -> None:
        await sdk.messages.create(model="m", max_tokens=-1, messages=HI)

    with pytest.raises(BadRequestError, match="max_tokens") as caught:
        with_sdk(PLAIN, fail)
    assert caught.value.request_id


def test_a_key_may_be_in_either_header() -> None:
    keyed = server_of(config={"keys": ApiKeys(["secret"])})
    body = {"max_tokens": 1, "messages": HI}
    for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer secret"}):
        sent = {**headers, "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
        assert ask(keyed, "POST", "/v1/messages", json=body, headers=sent).status_code == 200


def test_the_sdk_lists_the_models() -> None:
    async def models(sdk: AsyncAnthropic) -> list[str]:
        return [model.id async for model in sdk.models.list()]

    assert with_sdk(PLAIN, models) == ["org/fake"]


def test_the_description_has_both_forms_of_the_response() -> None:
    document = ask(PLAIN, "GET", "/schema/openapi.json").json()
    responses = document["paths"]["/v1/messages"]["post"]["responses"]
    assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {"400", "401", "413", "429", "503"} < set(responses)
