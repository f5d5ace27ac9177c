"""`/v2/chat`, over a whole server in this process. Its engine generates pieces of text."""

from __future__ import annotations

from typing import Any, ClassVar

from fllm_cohere import plugin

from fllm.testing import Response, RouteRequest, RoutesContract, ScriptedServer, plugins_with

PATH = "/v2/chat"
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather", "parameters": {"type": "object"}},
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Seoul"}}\n</tool_call>'


class TestCohere(RoutesContract):
    """Keys, limits, errors, streams, and clients that leave."""

    plugin: ClassVar[object] = plugin
    requests = (
        RouteRequest(path=PATH, body=HELLO, streamed={"stream": True}, required=["model", "messages"]),
    )

    def text(self, response: Response) -> str:
        return "".join(part["text"] for part in response.json()["message"]["content"])

    def streamed_text(self, response: Response) -> str:
        events = [each.json() for each in response.events() if each.name == "content-delta"]
        return "".join(event["delta"]["message"]["content"]["text"] for event in events)


def prompt_of(server: ScriptedServer) -> str:
    """Return the prompt of the latest request; a token is a byte."""
    return server.decode(server.engine.requests[-1].token_ids)


def test_a_response_has_the_text_the_reason_and_the_usage() -> None:
    server = ScriptedServer(plugin, pieces=["Hi", " there"])
    response = server.ask("POST", PATH, json=HELLO)
    counts = {"input_tokens": len("<user>Hello<assistant>"), "output_tokens": len("Hi there")}
    assert response.json() == {
        "id": response.headers["x-request-id"],
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "Hi there"}]},
        "usage": {"billed_units": counts, "tokens": counts},
    }


def test_the_limits_of_the_output_end_it() -> None:
    server = ScriptedServer(plugin, pieces=["Hi", " there"])
    short = server.ask("POST", PATH, json=HELLO | {"max_tokens": 3}).json()
    assert (short["finish_reason"], short["message"]["content"][0]["text"]) == ("MAX_TOKENS", "Hi ")
    stopped = server.ask("POST", PATH, json=HELLO | {"stop_sequences": ["the"]}).json()
    assert (stopped["finish_reason"], stopped["message"]["content"][0]["text"]) == ("STOP_SEQUENCE", "Hi ")


def test_a_stream_has_events_in_order_for_reasoning_text_and_calls() -> None:
    pieces = ["<think>", "It is", " sunny.", "</think>", "I look.", CALL]
    server = ScriptedServer(plugin, pieces=pieces, reasoning_parser="deepseek_r1", tool_call_parser="hermes")
    body = HELLO | {"tools": [WEATHER], "stream": True}
    events = server.ask("POST", PATH, json=body).events()
    assert all(event.json()["type"] == event.name for event in events)
    names = [event.name for event in events]
    assert list(dict.fromkeys(names)) == [
        *("message-start", "content-start", "content-delta", "content-end"),
        *("tool-call-start", "tool-call-delta", "tool-call-end", "message-end"),
    ]
    assert [each.json()["index"] for each in events if each.name.endswith(("t-end", "l-end"))] == [0, 1, 2]
    whole = server.ask("POST", PATH, json=body | {"stream": False}).json()
    assert whole["finish_reason"] == events[-1].json()["delta"]["finish_reason"] == "TOOL_CALL"
    assert whole["message"]["content"] == [
        {"type": "thinking", "thinking": "It is sunny."},
        {"type": "text", "text": "I look."},
    ]
    [call] = whole["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Seoul"}'}
    arguments = (
        event.json()["delta"]["message"]["tool_calls"]["function"]["arguments"]
        for event in events
        if event.name == "tool-call-delta"
    )
    assert "".join(arguments) == call["function"]["arguments"]


def test_a_conversation_reaches_the_template() -> None:
    server = ScriptedServer(plugin)
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be terse."}]},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "tool_plan": "I look.", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "c1", "content": [
            {"type": "document", "document": {"data": "22°"}},
        ]},
    ]  # fmt: skip
    response = server.ask("POST", PATH, json={"model": "m", "messages": messages, "tools": [WEATHER]})
    assert response.status == 200, response.content
    prompt = prompt_of(server)
    for text in (
        "Be terse.",
        "Weather?",
        "I look.",
        '"name": "look"',
        '{"data": "22°"}',
        '"name": "weather"',
    ):
        assert text in prompt


def test_what_is_not_supported_is_an_error_in_coheres_form() -> None:
    server = ScriptedServer(plugin)
    for field, value in (("documents", ["d"]), ("logprobs", True), ("p", 2), ("tool_choice", "auto")):
        response = server.ask("POST", PATH, json=HELLO | {field: value})
        assert response.status == 400
        assert set(response.json()) == {"id", "message"}
        assert field in response.json()["message"]


def test_the_sampling_parameters_reach_the_engine() -> None:
    server = ScriptedServer(plugin)
    given = {"temperature": 0.3, "k": 5, "p": 0.5, "seed": 7, "frequency_penalty": 0.25, "max_tokens": 9}
    server.ask("POST", PATH, json=HELLO | given)
    sampling = server.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed) == (0.3, 5, 0.5, 7)
    assert (sampling.frequency_penalty, sampling.max_tokens) == (0.25, 9)


def test_the_plugin_loads() -> None:
    assert plugins_with(plugin, installed=False).reports[-1].hooks == ["fllm_routes"]
