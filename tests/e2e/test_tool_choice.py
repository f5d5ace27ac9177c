"""Forced tool calls of the embedded model, through the real server and OpenAI's client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI
from support.http_server import Server, serving
from support.token_ids import tokens_of

MESSAGES: Any = [{"role": "user", "content": "What's the weather like in San Francisco?"}]
GET_WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {
                    "type": "string",
                    "description": "City and state, e.g., 'San Francisco, CA'",
                },
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location", "unit"],
        },
    },
}
SWITCH: Any = {
    "type": "function",
    "function": {
        "name": "switch",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}
EXPECTED_OUTPUT = """\
Function called: get_weather
Arguments: {"location": "San Francisco, CA", "unit": "fahrenheit"}
Result: Getting the weather for San Francisco, CA in fahrenheit...
"""


@pytest.fixture
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.api, api_key="EMPTY", max_retries=0)


@pytest.fixture(scope="module")
def plain() -> Iterator[OpenAI]:
    """Return a client of a server without parsers."""
    with serving("--max-model-len", "2048") as running:
        yield OpenAI(base_url=running.api, api_key="EMPTY", max_retries=0)


def ask(client: OpenAI, **options: Any) -> tuple[str | None, list[tuple[str, str]], str]:
    """Return content, calls and finish reason, after checking that they are the same in a stream."""
    options = {"model": "m", "messages": MESSAGES, "tools": [GET_WEATHER], "max_tokens": 200, **options}
    [choice] = client.chat.completions.create(**options).choices
    calls = [(each.function.name, each.function.arguments) for each in choice.message.tool_calls or ()]
    assert streamed(client, **options) == (choice.message.content or "", calls, choice.finish_reason)
    return choice.message.content, calls, choice.finish_reason


def streamed(client: OpenAI, **options: Any) -> tuple[str, list[tuple[str, str]], str]:
    content, reason = "", ""
    calls: list[tuple[str, str]] = []
    for chunk in client.chat.completions.create(**options, stream=True):
        [choice] = chunk.choices
        content += choice.delta.content or ""
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or ():
            if call.id:
                calls.append((call.function.name, ""))
            name, arguments = calls[call.index]
            calls[call.index] = name, arguments + (call.function.arguments or "")
    return content, calls, reason


def get_weather(location: str, unit: str) -> str:
    return f"Getting the weather for {location} in {unit}..."


def example_output(calls: list[tuple[str, str]]) -> str:
    """Return what the README's example prints for these calls."""
    [(name, arguments)] = calls
    result = get_weather(**json.loads(arguments))
    return f"Function called: {name}\nArguments: {arguments}\nResult: {result}\n"


def test_the_readmes_example_prints_its_output(client: OpenAI) -> None:
    # Celsius is slightly likelier for the model, so greedy decoding chooses it.
    _, calls, reason = ask(client, tool_choice="required", parallel_tool_calls=False, temperature=0)
    assert reason == "tool_calls"
    assert example_output(calls).replace("celsius", "fahrenheit") == EXPECTED_OUTPUT
    seeds = range(30)
    responses = (ask(client, tool_choice="required", parallel_tool_calls=False, seed=seed) for seed in seeds)
    assert any(example_output(calls) == EXPECTED_OUTPUT for _, calls, _ in responses)


@pytest.mark.parametrize("seed", range(3))
def test_a_required_call_matches_the_schema_of_its_tool(client: OpenAI, seed: int) -> None:
    tools = [GET_WEATHER, SWITCH]
    content, calls, reason = ask(client, tools=tools, tool_choice="required", seed=seed, max_tokens=400)
    assert content is None
    assert reason == "tool_calls"
    for name, arguments in calls:
        keys = {"get_weather": {"location", "unit"}, "switch": {"on"}}[name]
        assert set(json.loads(arguments)) == keys


def test_a_named_function_is_called_exactly_once(client: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "switch"}}
    _, [(name, arguments)], reason = ask(client, tools=[GET_WEATHER, SWITCH], tool_choice=choice, seed=0)
    assert name == "switch"
    assert json.loads(arguments)["on"] in (True, False)
    assert reason == "stop"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "switch"}}], ids=str
)
def test_a_server_without_a_parser_can_force_calls(plain: OpenAI, choice: Any) -> None:
    content, [(name, arguments)], _ = ask(
        plain, tools=[SWITCH], tool_choice=choice, parallel_tool_calls=False, temperature=0
    )
    assert content is None
    assert name == "switch"
    assert json.loads(arguments)["on"] in (True, False)


def test_a_strict_schema_constrains_an_optional_call(client: OpenAI) -> None:
    strict = {"type": "function", "function": {**SWITCH["function"], "strict": True}}
    # With this bias the model begins with a brace, like a call.
    brace, *_ = tokens_of(client, '{"name"')
    text = 'Repeat this text: {"name": "switch", "parameters": {"on": "maybe"}}'
    options: Any = {
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 60,
        "logit_bias": {brace: 6},
    }
    _, free, _ = ask(client, tools=[SWITCH], **options)
    _, constrained, _ = ask(client, tools=[strict], **options)
    assert constrained
    assert constrained != free
    assert {name for name, _ in constrained} == {"switch"}
    assert all(json.loads(arguments)["on"] in (True, False) for _, arguments in constrained)


def test_a_response_format_still_allows_a_call(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed in range(4):
        content, calls, reason = ask(client, response_format=form, tools=[SWITCH], seed=seed, max_tokens=400)
        assert reason == ("tool_calls" if calls else "stop")
        if not calls:
            assert json.loads(content or "")["sunny"] in (True, False)
