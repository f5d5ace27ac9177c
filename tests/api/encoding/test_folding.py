"""Folding a stream gives the response that is not streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.api_fakes import FakeReasoningParser, FakeToolCallParser, a_server, backend_of, events

from fllm_api.app import create_app

SERVER = a_server([], reasoning=FakeReasoningParser, tools=FakeToolCallParser)
APP = create_app(SERVER)
EOS_ID = backend_of(SERVER).steps[-1][0]
TOOLS = [{"type": "function", "function": {"name": "f"}}]

pieces = st.sampled_from(["[f:", '{"a"', ":1}", "]", "|", "☃", "é🎉", "a", " b\n", "<|eot|>", "[", "stop"])
texts = st.lists(pieces, max_size=8).map("".join)


@st.composite
def scripts(draw: st.DrawFn) -> list[list[int]]:
    """Return the ids of a text's bytes in steps that may split characters."""
    ids = SERVER.tokenizer.encode(draw(texts), add_special_tokens=False)
    steps: list[list[int]] = []
    while ids:
        size = draw(st.integers(1, 4))
        steps.append(ids[:size])
        ids = ids[size:]
    return [*steps, [EOS_ID]]


options = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(1, 2),
        "logprobs": st.just(True),
        "stop": st.just(["stop", "b\n|"]),
        "tools": st.just(TOOLS),
        "parallel_tool_calls": st.booleans(),
        "max_tokens": st.integers(1, 12),
        "skip_special_tokens": st.booleans(),
    },
)


def both(path: str, body: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    async def go() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://test") as client:
            whole = await client.post(path, json=body)
            stream = {"stream": True, "stream_options": {"include_usage": True}}
            return whole, await client.post(path, json=body | stream)

    whole, streamed = asyncio.run(go())
    assert whole.status_code == 200, whole.text
    return whole.json(), events(streamed)


def parts(chunks: list[dict[str, Any]], index: int) -> Iterator[dict[str, Any]]:
    return (choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index)


def fold_chat(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the chunks of a choice as a client does."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    logprobs: list[Any] = []
    for choice in choices:
        delta = choice["delta"]
        message["role"] = delta.get("role") or message["role"]
        for key in ("content", "reasoning_content"):
            message[key] += delta.get(key, "")
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(message["tool_calls"])
                message["tool_calls"].append([call["type"], call["function"]["name"], ""])
            message["tool_calls"][call["index"]][2] += call["function"]["arguments"]
        logprobs += (choice["logprobs"] or {"content": []})["content"]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert reasons == [choices[-1]["finish_reason"]]
    return {
        "message": message,
        "logprobs": logprobs,
        "finish": reasons[0],
        "stop": choices[-1]["stop_reason"],
    }


def plain_chat(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice that is not streamed in the same form."""
    message = choice["message"]
    calls = message.get("tool_calls", ())
    return {
        "message": {
            "role": message["role"],
            "content": message["content"] or "",
            "reasoning_content": message.get("reasoning_content", ""),
            "tool_calls": [[c["type"], c["function"]["name"], c["function"]["arguments"]] for c in calls],
        },
        "logprobs": (choice["logprobs"] or {"content": []})["content"],
        "finish": choice["finish_reason"],
        "stop": choice["stop_reason"],
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scripts(), options)
def test_a_chat_is_the_fold_of_its_stream(script: list[list[int]], options: dict[str, Any]) -> None:
    backend_of(SERVER).steps = script
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **options}
    whole, chunks = both("/v1/chat/completions", body)
    for choice in whole["choices"]:
        assert fold_chat(list(parts(chunks, choice["index"]))) == plain_chat(choice)
    assert len(whole["choices"]) == options.get("n", 1)
    assert chunks[-1]["usage"] == whole["usage"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scripts(), options, st.booleans())
def test_a_completion_is_the_fold_of_its_stream(
    script: list[list[int]], options: dict[str, Any], echo: bool
) -> None:
    backend_of(SERVER).steps = script
    body = {**options, "model": "m", "prompt": ["Hé", "x"], "echo": echo}
    if body.pop("logprobs", False):
        body["logprobs"] = 1
    for name in ("tools", "parallel_tool_calls"):
        body.pop(name, None)
    whole, chunks = both("/v1/completions", body)
    for choice in whole["choices"]:
        streamed = list(parts(chunks, choice["index"]))
        assert "".join(part["text"] for part in streamed) == choice["text"]
        assert [part["finish_reason"] for part in streamed if part["finish_reason"]] == [
            choice["finish_reason"]
        ]
        assert streamed[-1]["stop_reason"] == choice["stop_reason"]
        for name in choice["logprobs"] or ():
            entries = [entry for part in streamed for entry in part["logprobs"][name]]
            assert entries == choice["logprobs"][name]
    assert chunks[-1]["usage"] == whole["usage"]
