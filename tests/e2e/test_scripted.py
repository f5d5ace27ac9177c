"""Tool calls and reasoning over HTTP, with the recorded output of larger models."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
from openai import OpenAI
from support.http_server import Server
from support.model_scripts import DEEPSEEK_R1, LLAMA31_WEATHER, REASONS_THEN_CALLS

MESSAGES: Any = [{"role": "user", "content": "What's the weather?"}]
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("get_weather", "now")
]
BOTH = ("--tool-call-parser", "llama3_json", "--reasoning-parser", "deepseek_r1")


def fold(server: Server, **options: Any) -> dict[str, Any]:
    """Return message, finish reason and usage of a streamed response, as a client assembles them."""
    client = OpenAI(base_url=server.api, api_key="EMPTY")
    stream: Any = client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **options
    )
    message: dict[str, Any] = {"role": None, "content": "", "reasoning_content": "", "tool_calls": []}
    reasons, usage = [], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            delta = choice.delta
            message["role"] = delta.role or message["role"]
            message["content"] += delta.content or ""
            message["reasoning_content"] += getattr(delta, "reasoning_content", None) or ""
            for call in delta.tool_calls or []:
                if call.id:
                    message["tool_calls"].append(
                        {"type": call.type, "name": call.function.name, "arguments": ""}
                    )
                message["tool_calls"][call.index]["arguments"] += call.function.arguments or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert len(reasons) == 1
    return {"message": message, "finish_reason": reasons[0], "usage": usage.model_dump()}


def whole(server: Server, **options: Any) -> dict[str, Any]:
    """Return message, finish reason and usage of a non-streaming response."""
    client = OpenAI(base_url=server.api, api_key="EMPTY")
    response: Any = client.chat.completions.create(model="m", messages=MESSAGES, **options)
    [choice] = response.choices
    calls = choice.message.tool_calls or []
    return {
        "message": {
            "role": choice.message.role,
            "content": choice.message.content or "",
            "reasoning_content": getattr(choice.message, "reasoning_content", ""),
            "tool_calls": [
                {"type": call.type, "name": call.function.name, "arguments": call.function.arguments}
                for call in calls
            ],
        },
        "finish_reason": choice.finish_reason,
        "usage": response.usage.model_dump(),
    }


def test_reasoning_and_two_calls_are_separated(scripted: Callable[..., Server]) -> None:
    server = scripted(REASONS_THEN_CALLS, *BOTH)
    response = whole(server, tools=TOOLS)
    assert response == fold(server, tools=TOOLS)
    message = response["message"]
    assert message["reasoning_content"] == "\nThe user wants both ☀️.\n"
    assert message["content"].strip() == ""
    assert [(call["name"], json.loads(call["arguments"])) for call in message["tool_calls"]] == [
        ("get_weather", {"location": "서울"}),
        ("now", {}),
    ]
    assert response["finish_reason"] == "tool_calls"
    assert response["usage"]["completion_tokens_details"]["reasoning_tokens"] == 8


def test_a_call_cut_by_length_has_finish_reason_length(scripted: Callable[..., Server]) -> None:
    server = scripted(LLAMA31_WEATHER, "--enable-auto-tool-choice", "--tool-call-parser", "llama3_json")
    response = whole(server, tools=TOOLS, max_tokens=12)
    assert response == fold(server, tools=TOOLS, max_tokens=12)
    assert response["finish_reason"] == "length"


def test_without_tools_a_call_is_content(scripted: Callable[..., Server]) -> None:
    server = scripted(LLAMA31_WEATHER, "--enable-auto-tool-choice", "--tool-call-parser", "llama3_json")
    for options in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        response = whole(server, **options)
        assert response == fold(server, **options)
        assert response["message"]["content"].startswith('{"name": "get_weather"')
        assert response["finish_reason"] == "stop"


def test_reasoning_content_is_absent_without_a_parser(scripted: Callable[..., Server]) -> None:
    server = scripted(LLAMA31_WEATHER, "--enable-auto-tool-choice", "--tool-call-parser", "llama3_json")
    response = httpx.post(f"{server.api}/chat/completions", json={"model": "m", "messages": MESSAGES}).json()
    assert "reasoning_content" not in response["choices"][0]["message"]


def test_a_prompt_that_opens_the_reasoning_needs_no_tag(scripted: Callable[..., Server]) -> None:
    server = scripted(DEEPSEEK_R1, "--enable-reasoning", "--reasoning-parser", "deepseek_r1")
    response = whole(server)
    assert response == fold(server)
    assert response["message"]["reasoning_content"].startswith("First, compare")
    assert response["message"]["content"] == "\n\n9.8 is greater."
    assert response["usage"]["completion_tokens_details"]["reasoning_tokens"] == DEEPSEEK_R1.tokens.index(
        "</think>"
    )
