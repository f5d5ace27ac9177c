"""OpenAI's client accepts every response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import openai
import pytest
from support.api_fakes import FakeReasoningParser, FakeToolCallParser, a_server

from fllm_api.app import create_app
from fllm_api.app_state import AppState

T = TypeVar("T")
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def through_client(server: AppState, use: Callable[[openai.AsyncOpenAI], Awaitable[T]]) -> T:
    async def go() -> T:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(server)))
        async with openai.AsyncOpenAI(
            base_url="http://test/v1", api_key="EMPTY", http_client=http, max_retries=0
        ) as client:
            return await use(client)

    return asyncio.run(go())


def test_chat() -> None:
    async def use(client: openai.AsyncOpenAI) -> Any:
        return await client.chat.completions.create(
            model="m", messages=MESSAGES, logprobs=True, top_logprobs=1, tools=TOOLS
        )

    response = through_client(
        a_server(["Hm|", "Yes", "[f:{}]"], reasoning=FakeReasoningParser, tools=FakeToolCallParser), use
    )
    message = response.choices[0].message
    assert (message.reasoning_content, message.content) == ("Hm", "Yes")
    assert message.tool_calls[0].function.name == "f"
    assert len(response.choices[0].logprobs.content) == response.usage.completion_tokens == 4
    assert type(response).model_validate(response.model_dump(), strict=True)


def test_the_reasoning_field_is_absent_without_reasoning() -> None:
    async def use(client: openai.AsyncOpenAI) -> Any:
        return await client.chat.completions.create(model="m", messages=MESSAGES)

    assert not hasattr(through_client(a_server(), use).choices[0].message, "reasoning_content")


def test_a_streamed_chat() -> None:
    async def use(client: openai.AsyncOpenAI) -> list[Any]:
        stream: Any = await client.chat.completions.create(
            model="m",
            messages=MESSAGES,
            stream=True,
            tools=TOOLS,
            stream_options={"include_usage": True},
        )
        return [chunk async for chunk in stream]

    chunks = through_client(a_server(["Yes", "[f:{", "}]"], tools=FakeToolCallParser), use)
    for chunk in chunks:
        type(chunk).model_validate(chunk.model_dump(), strict=True)
    calls = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or ()]
    assert [call.index for call in calls] == [0, 0, 0]
    assert "".join(call.function.arguments for call in calls) == "{}"
    assert chunks[-1].usage.completion_tokens == 4


def test_a_streamed_failure_becomes_the_clients_exception(caplog: pytest.LogCaptureFixture) -> None:
    async def use(client: openai.AsyncOpenAI) -> None:
        stream: Any = await client.completions.create(model="m", prompt="x", stream=True)
        async for _ in stream:
            pass

    server = a_server()
    server.backend.fails_after = 1  # type: ignore[attr-defined]
    with pytest.raises(openai.APIError, match="the server failed"):
        through_client(server, use)


def test_completions() -> None:
    async def use(client: openai.AsyncOpenAI) -> Any:
        return await client.completions.create(model="m", prompt=["a", "b"], echo=True, logprobs=1)

    response = through_client(a_server(), use)
    assert [choice.text for choice in response.choices] == ["aHello world!", "bHello world!"]
    assert response.choices[1].logprobs.text_offset == [0, 1, 6, 12, 13]
    assert response.choices[1].logprobs.token_logprobs == [None, -0.25, -0.25, -0.25, -0.25]


def test_models_with_slashes() -> None:
    async def use(client: openai.AsyncOpenAI) -> Any:
        found = (await client.models.list()).data[0]
        return await client.models.retrieve(found.id)

    assert through_client(a_server(), use).id == "org/fake"


def test_errors_become_the_clients_exceptions() -> None:
    async def use(client: openai.AsyncOpenAI) -> None:
        await client.chat.completions.create(model="m", messages=MESSAGES, temperature=-1)

    with pytest.raises(openai.BadRequestError) as caught:
        through_client(a_server(), use)
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")
