"""The same conversation through Chat, Responses and Messages: the same prompts, texts, calls and usage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from msgspec import Struct
from support.api_fakes import a_server, ask, backend_of, byte_tokenizer
from support.model_scripts import QWEN3_TEMPLATE, qwen3_output

from fllm.chat import ChatTemplate, control_tokens
from fllm.testing import plugins_with
from fllm_api.app_state import AppState
from fllm_parsers.reasoning.qwen3 import Qwen3Parser
from fllm_parsers.tools.hermes import HermesParser

SYSTEM, QUESTION = "Be brief.", "Weather in Paris and 서울?"
CITIES, RESULTS = ("Paris", "서울"), ("sunny ☀", "rain")
THOUGHT, TEXT, ANSWER = "Two calls ☔.", "I look.", "Paris is sunny ☀, 서울 has rain."
NAME, DESCRIPTION = "get_weather", "Look up the weather."
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS = tuple((NAME, {"city": city}) for city in CITIES)
FIRST = qwen3_output(TEXT, *CALLS, reasoning=THOUGHT)[:-1]
REASONING_TOKENS = FIRST.index("</think>") - FIRST.index("<think>") - 1
SECOND = qwen3_output(ANSWER, reasoning="All is known.")[:-1]


class Reply(Struct, frozen=True):
    """What a client has received, in no dialect's terms."""

    reasoning: str
    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    """Name and arguments of each call."""
    ids: tuple[str, ...]
    """Id of each call."""
    reason: str
    usage: tuple[int, int, int]
    """Number of prompt tokens, of those from the cache, and of generated tokens."""
    reasoning_tokens: int


def a_model(output: Sequence[str]) -> AppState:
    """Return a server with every dialect. Its model generates this output, in Qwen3's format."""
    tokenizer = byte_tokenizer()
    template = ChatTemplate.compile(
        {"default": QWEN3_TEMPLATE},
        special_tokens=tokenizer.special_tokens,
        control_tokens=control_tokens(tokenizer),
    )
    return a_server(
        output,
        reasoning=Qwen3Parser,
        tools=HermesParser,
        template=template,
        plugins=plugins_with(),
        card={"max_model_len": 8192},
    )


class Chat:
    path = "/v1/chat/completions"
    calls_reason, end_reason = "tool_calls", "stop"

    def body(self, first: Reply | None) -> dict[str, Any]:
        """Return the first request, or the one with the results of the first reply's calls."""
        messages: list[Any] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION},
        ]
        if first:
            calls = [
                {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
                for id, (name, arguments) in zip(first.ids, first.calls, strict=True)
            ]
            message = {"role": "assistant", "content": first.text, "reasoning_content": first.reasoning}
            results = [
                {"role": "tool", "tool_call_id": id, "content": result}
                for id, result in zip(first.ids, RESULTS, strict=True)
            ]
            messages += [{**message, "tool_calls": calls}, *results]
        function = {"name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}
        return {
            "messages": messages,
            "tools": [{"type": "function", "function": function}],
            "stream_options": {"include_usage": True},
        }

    def whole(self, response: dict[str, Any]) -> Reply:
        [choice] = response["choices"]
        message, usage = choice["message"], response["usage"]
        calls = message.get("tool_calls") or []
        return Reply(
            reasoning=message["reasoning_content"],
            text=message["content"] or "",
            calls=tuple(
                (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls
            ),
            ids=tuple(call["id"] for call in calls),
            reason=choice["finish_reason"],
            usage=(
                usage["prompt_tokens"],
                usage["prompt_tokens_details"]["cached_tokens"],
                usage["completion_tokens"],
            ),
            reasoning_tokens=usage["completion_tokens_details"]["reasoning_tokens"],
        )

    def streamed(self, events: list[dict[str, Any]]) -> Reply:
        message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
        reason, usage = None, None
        for event in events:
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                reason = choice["finish_reason"] or reason
                delta = choice["delta"]
                for key in ("content", "reasoning_content"):
                    message[key] += delta.get(key) or ""
                for call in delta.get("tool_calls") or ():
                    if "id" in call:
                        message["tool_calls"].append(
                            {**call, "function": {**call["function"], "arguments": ""}}
                        )
                    function = message["tool_calls"][call["index"]]["function"]
                    function["arguments"] += call["function"].get("arguments") or ""
        return self.whole({"choices": [{"message": message, "finish_reason": reason}], "usage": usage})


class Responses:
    path = "/v1/responses"
    calls_reason = end_reason = "completed"

    def body(self, first: Reply | None) -> dict[str, Any]:
        """Return the first request, or the one with the results of the first reply's calls."""
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        if first:
            reasoning = {"type": "reasoning_text", "text": first.reasoning}
            items += [
                {"type": "reasoning", "id": "rs_1", "summary": [], "content": [reasoning]},
                {"role": "assistant", "content": [{"type": "output_text", "text": first.text}]},
            ]
            items += [
                {"type": "function_call", "call_id": id, "name": name, "arguments": json.dumps(arguments)}
                for id, (name, arguments) in zip(first.ids, first.calls, strict=True)
            ]
            items += [
                {"type": "function_call_output", "call_id": id, "output": result}
                for id, result in zip(first.ids, RESULTS, strict=True)
            ]
        tool = {"type": "function", "name": NAME, "description": DESCRIPTION, "parameters": SCHEMA}
        return {"instructions": SYSTEM, "input": items, "tools": [{**tool, "strict": False}], "store": False}

    def whole(self, response: dict[str, Any]) -> Reply:
        usage = response["usage"]
        texts = {
            kind: "".join(
                part["text"]
                for item in response["output"]
                for part in item.get("content") or ()
                if part["type"] == kind
            )
            for kind in ("reasoning_text", "output_text")
        }
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        return Reply(
            reasoning=texts["reasoning_text"],
            text=texts["output_text"],
            calls=tuple((call["name"], json.loads(call["arguments"])) for call in calls),
            ids=tuple(call["call_id"] for call in calls),
            reason=response["status"],
            usage=(
                usage["input_tokens"],
                usage["input_tokens_details"]["cached_tokens"],
                usage["output_tokens"],
            ),
            reasoning_tokens=usage["output_tokens_details"]["reasoning_tokens"],
        )

    def streamed(self, events: list[dict[str, Any]]) -> Reply:
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        items: dict[int, dict[str, Any]] = {}
        for event in events:
            index = event.get("output_index")
            match event["type"]:
                case "response.output_item.added":
                    items[index] = {**event["item"], "content": []}
                case "response.content_part.added" | "response.reasoning_part.added":
                    items[index]["content"].append(dict(event["part"]))
                case "response.output_text.delta":
                    items[index]["content"][event["content_index"]]["text"] += event["delta"]
                case "response.reasoning_text.delta":
                    content = items[index]["content"] = items[index]["content"] or [
                        {"type": "reasoning_text", "text": ""}
                    ]
                    content[0]["text"] += event["delta"]
                case "response.function_call_arguments.delta":
                    items[index]["arguments"] += event["delta"]
        response = events[-1]["response"]
        reply = self.whole({**response, "output": list(items.values())})
        assert reply == self.whole(response)
        return reply


class Messages:
    path = "/v1/messages"
    calls_reason, end_reason = "tool_use", "end_turn"

    def body(self, first: Reply | None) -> dict[str, Any]:
        """Return the first request, or the one with the results of the first reply's calls."""
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        if first:
            calls = [
                {"type": "tool_use", "id": id, "name": name, "input": arguments}
                for id, (name, arguments) in zip(first.ids, first.calls, strict=True)
            ]
            thinking = {"type": "thinking", "thinking": first.reasoning, "signature": ""}
            content = [thinking, {"type": "text", "text": first.text}, *calls]
            results = [
                {"type": "tool_result", "tool_use_id": id, "content": result}
                for id, result in zip(first.ids, RESULTS, strict=True)
            ]
            messages += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
        return {
            "max_tokens": 1000,
            "thinking": {"type": "adaptive"},
            "system": SYSTEM,
            "messages": messages,
            "tools": [{"name": NAME, "description": DESCRIPTION, "input_schema": SCHEMA}],
        }

    def whole(self, response: dict[str, Any]) -> Reply:
        usage, blocks = response["usage"], response["content"]
        cached = usage["cache_read_input_tokens"]
        calls = [block for block in blocks if block["type"] == "tool_use"]
        return Reply(
            reasoning="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
            text="".join(block["text"] for block in blocks if block["type"] == "text"),
            calls=tuple((call["name"], call["input"]) for call in calls),
            ids=tuple(call["id"] for call in calls),
            reason=response["stop_reason"],
            usage=(
                usage["input_tokens"] + usage["cache_creation_input_tokens"] + cached,
                cached,
                usage["output_tokens"],
            ),
            reasoning_tokens=usage["output_tokens_details"]["thinking_tokens"],
        )

    def streamed(self, events: list[dict[str, Any]]) -> Reply:
        message: dict[str, Any] = {}
        for event in events:
            match event["type"]:
                case "message_start":
                    message = event["message"]
                case "content_block_start":
                    assert event["index"] == len(message["content"])
                    message["content"].append({**event["content_block"], "json": ""})
                case "content_block_delta":
                    block, delta = message["content"][event["index"]], event["delta"]
                    for key, name in (("text", "text"), ("thinking", "thinking"), ("json", "partial_json")):
                        if name in delta:
                            block[key] += delta[name]
                case "message_delta":
                    message |= event["delta"]
                    message["usage"] |= event["usage"]
        for block in message["content"]:
            if block["type"] == "tool_use":
                block["input"] = json.loads(block["json"])
        assert events[-1]["type"] == "message_stop"
        return self.whole(message)


Dialect = Chat | Responses | Messages


def reply_of(server: AppState, dialect: Dialect, first: Reply | None, stream: bool) -> Reply:
    """Return what the model replies, and check that its prompt is that of Chat."""
    request = {"model": "m", "stream": stream}
    body = dialect.body(first)
    if not stream:
        body.pop("stream_options", None)
    response = ask(server, "POST", dialect.path, json={**body, **request})
    assert response.status_code == 200, response.text
    if not stream:
        return dialect.whole(response.json())
    return dialect.streamed(data(response))


def data(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.fixture(scope="module")
def before() -> AppState:
    """Return a server whose model calls the tool for both cities."""
    return a_model(FIRST)


@pytest.fixture(scope="module")
def after() -> AppState:
    """Return a server whose model answers."""
    return a_model(SECOND)


@pytest.fixture(scope="module")
def prompts(before: AppState, after: AppState) -> list[list[int]]:
    """Return the prompts of both turns, sent as Chat."""
    chat = Chat()
    reply_of(after, chat, reply_of(before, chat, None, False), False)
    return [backend_of(server).prompts[-1].token_ids for server in (before, after)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", [Chat(), Responses(), Messages()], ids=lambda each: type(each).__name__)
def test_the_same_conversation_has_the_same_texts_calls_and_usage(
    dialect: Dialect, stream: bool, before: AppState, after: AppState, prompts: list[list[int]]
) -> None:
    first = reply_of(before, dialect, None, stream)
    assert (first.reasoning.strip(), first.text.strip()) == (THOUGHT, TEXT)
    assert first.calls == CALLS
    assert len(set(first.ids)) == len(CALLS)
    assert first.reason == dialect.calls_reason
    assert first.usage == (len(prompts[0]), 1, len(FIRST) + 1)
    assert first.reasoning_tokens == REASONING_TOKENS
    last = reply_of(after, dialect, first, stream)
    assert (last.text.strip(), last.calls, last.reason) == (ANSWER, (), dialect.end_reason)
    assert last.usage == (len(prompts[1]), 1, len(SECOND) + 1)
    assert [backend_of(server).prompts[-1].token_ids for server in (before, after)] == prompts
