"""`POST /page/chat`: its events, and the same text and usage as Chat's."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, ClassVar

import pytest

from fllm.testing import Response, RouteRequest, RoutesContract, ScriptedServer
from fllm_page import plugin

CALL = '<tool_call>\n{"name": "now", "arguments": {"zone": "KST"}}\n</tool_call>'
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400}


def events_of(response: Response) -> list[dict[str, Any]]:
    found = [json.loads(event.data) for event in response.events()]
    assert [event["event"] for event in found] == [event.name for event in response.events()]
    return found


def text_of(events: list[dict[str, Any]], kind: str = "text") -> str:
    return "".join(event["text"] for event in events if event["event"] == "event" and event["type"] == kind)


@pytest.fixture(scope="module")
def server() -> ScriptedServer:
    pieces = ["<think>hm", " 안</think>", "Let me", " look ❤", CALL[:30], CALL[30:]]
    return ScriptedServer(plugin, pieces=pieces, reasoning_parser="qwen3", tool_call_parser="hermes")


class TestContract(RoutesContract):
    plugin: ClassVar[object] = plugin
    requests = (
        RouteRequest(path="/page/chat", body={**HI, "inspect": True}, streamed={}, required=["messages"]),
        RouteRequest(path="/page/server", method="GET", generates=False),
        RouteRequest(path="/page/machine", method="GET", generates=False),
        RouteRequest(path="/page/plugins", method="GET", generates=False),
    )

    def text(self, response: Response) -> str:
        return text_of(events_of(response))

    streamed_text = text

    def test_a_late_request_is_an_error(self) -> None:
        late = self.server(request_timeout=0.05)
        late.engine.stalls_after = 1
        last = events_of(late.ask("POST", "/page/chat", json=HI))[-1]
        assert (last["event"], last["error"]["type"]) == ("error", "timeout_error")
        assert not late.engine.running


def test_text_and_usage_are_those_of_chat(server: ScriptedServer) -> None:
    body = {**HI, "tools": [TOOL]}
    events = events_of(server.ask("POST", "/page/chat", json={**body, "inspect": True}))
    chat = server.ask("POST", "/v1/chat/completions", json=body).json()
    [choice] = chat["choices"]
    [call] = choice["message"]["tool_calls"]
    assert text_of(events) == choice["message"]["content"] == "Let me look ❤"
    assert text_of(events, "reasoning") == choice["message"]["reasoning_content"] == "hm 안"
    assert text_of(events, "tool_arguments") == call["function"]["arguments"]
    [start] = [event for event in events if event.get("type") == "tool_start"]
    assert (start["call"], start["name"], start["parser"]) == (0, "now", "hermes")
    assert start["id"].startswith("call")
    finish, done = events[-2:]
    assert finish == {"event": "finish", "index": 0, "reason": "tool_calls", "stop_reason": None}
    usage = chat["usage"]
    assert done["usage"] == {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"],
        "cached_tokens": 0,
    }


def test_each_event_names_its_parser(server: ScriptedServer) -> None:
    found = events_of(server.ask("POST", "/page/chat", json={**HI, "tools": [TOOL]}))
    parsers = {(event["type"], event["parser"]) for event in found if event["event"] == "event"}
    assert parsers == {
        *(("reasoning", "qwen3"), ("text", "hermes"), ("tool_start", "hermes"), ("tool_arguments", "hermes")),
    }
    without_tools = events_of(server.ask("POST", "/page/chat", json={**HI, "tool_choice": "none"}))
    assert {event["parser"] for event in without_tools if event.get("type") == "text"} == {"qwen3"}


def test_without_inspect_there_are_no_tokens(server: ScriptedServer) -> None:
    kinds = Counter(event["event"] for event in events_of(server.ask("POST", "/page/chat", json=HI)))
    assert set(kinds) == {"event", "finish", "done"}
    assert not server.engine.requests[-1].sampling.allowed_counts
    assert server.engine.requests[-1].sampling.logprobs is None


def test_with_inspect_the_prompt_and_each_token_are_shown(server: ScriptedServer) -> None:
    prompt, *events = events_of(server.ask("POST", "/page/chat", json={**HI, "inspect": True}))
    assert {**prompt, "tokens": "".join(token["text"] for token in prompt["tokens"])} == {
        "event": "prompt",
        "text": "<user>Hi<assistant>",
        "tokens": "<user>Hi<assistant>",
        "model": "scripted",
        "reasoning_parser": "qwen3",
        "tool_call_parser": None,
        "template": "model",
    }
    tokens = [event for event in events if event["event"] == "token"]
    assert tokens[0] == {
        "event": "token",
        "index": 0,
        "id": prompt["tokens"][0]["id"],
        "text": "<",
        "logprob": -1.0,
        "top": [{"id": prompt["tokens"][0]["id"], "text": "<", "logprob": -1.0}],
        "allowed": None,
        "forced": False,
    }
    assert len(tokens) == events[-1]["usage"]["completion_tokens"]
    assert [token["text"] for token in tokens][10:13] == ["\\xec", "\\x95", "\\x88"]  # bytes of one character
    raw = "".join(event["text"] for event in events if event["event"] == "raw")
    assert raw == "".join(server.engine.pieces)
    assert server.engine.requests[-1].sampling.allowed_counts


def test_many_tokens_at_once_are_all_shown() -> None:
    long = ScriptedServer(plugin, pieces=["x" * 300])
    events = events_of(long.ask("POST", "/page/chat", json={**HI, "inspect": True}))
    assert sum(event["event"] == "token" for event in events) == 300


def test_choices_have_their_index(server: ScriptedServer) -> None:
    events = events_of(server.ask("POST", "/page/chat", json={**HI, "n": 2}))
    assert [event["index"] for event in events if event["event"] == "finish"] == [0, 1]
    assert events[-1]["usage"]["prompt_tokens"] == len("<user>Hi<assistant>")


def test_a_continued_message_may_be_repeated(server: ScriptedServer) -> None:
    messages = [*HI["messages"], {"role": "assistant", "content": "Well, "}]  # type: ignore[misc]
    body = {**HI, "messages": messages, "echo": True, "continue_final_message": True}
    events = events_of(server.ask("POST", "/page/chat", json={**body, "add_generation_prompt": False}))
    assert events[0] == {"event": "event", "index": 0, "type": "text", "parser": None, "text": "Well, "}


def test_times_add_up(server: ScriptedServer) -> None:
    done = events_of(server.ask("POST", "/page/chat", json=HI))[-1]
    times = done["timings"]
    assert set(times) == {"queue", "prefill", "decode", "total"}
    assert 0 <= times["queue"] + times["prefill"] + times["decode"] <= times["total"] + 0.001
    assert done["request_id"]


def test_an_error_has_the_envelope_before_and_in_the_stream() -> None:
    failing = ScriptedServer(plugin)
    before = failing.ask("POST", "/page/chat", json={**HI, "temperature": -1})
    assert (before.status, before.json()["error"]["param"]) == (400, "temperature")
    failing.engine.fails_after = 1
    last = events_of(failing.ask("POST", "/page/chat", json=HI))[-1]
    assert (last["event"], last["error"]["type"]) == ("error", "server_error")
