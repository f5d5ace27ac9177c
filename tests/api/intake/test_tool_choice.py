"""Tool choice: the constraint of the output, and the parser of the calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.api_fakes import FakeToolCallParser, a_server, backend_of, chat, error_of, events

from fllm.constraints import (
    ANY_OBJECT,
    AnyOf,
    Concat,
    Constraint,
    ConstString,
    JsonSchema,
    Repeat,
    Tag,
    TriggeredTags,
)
from fllm.parsing.fallback_tool_format import FALLBACK_TOOL_FORMAT
from fllm.structured_output.tool_format import ToolFormat
from fllm_api.app_state import AppState
from fllm_api.intake.constraints import MAX_CONSTRAINT_CHARS, MAX_SCHEMA_DEPTH

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
SCHEMA = JsonSchema('{"type":"object","properties":{"a":{"type":"integer"}}}')
NOTHING = JsonSchema('{"type":"object","properties":{}}')
FORCED = '[{"name": "f", "parameters": {"a": 1}}, {"name": "g", "parameters": {}}]'


class CallsWithFormat(FakeToolCallParser):
    """A tool-call parser that declares its format."""

    tool_format = ToolFormat(begin="[", middle=":", end="]", between=" ")


def tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


TOOLS = [tool("f", PARAMETERS), tool("g")]


def tool_server(*words: str, **parts: Any) -> AppState:
    return a_server(words or ("[f:{}]",), **{"card": {"grammar": "fake"}, "tools": CallsWithFormat, **parts})


def constraint_of(server: AppState, **body: Any) -> Constraint | None:
    response = chat(server, **{"tools": TOOLS, **body})
    assert response.status_code == 200, response.text
    return backend_of(server).prompts[-1].constraint


def json_calls(
    format: ToolFormat, calls: Sequence[tuple[str, Constraint]], max_calls: int | None = None
) -> Constraint:
    options = [
        Concat((ConstString(f"{format.begin}{name}{format.middle}"), schema, ConstString(format.end)))
        for name, schema in calls
    ]
    item = AnyOf(tuple(options))
    return Concat(
        (
            ConstString(format.before),
            Repeat(item=item, separator=format.between, max=max_calls),
            ConstString(format.after),
        )
    )


BOTH = (("f", SCHEMA), ("g", NOTHING))


@pytest.mark.parametrize(
    ("body", "constraint"),
    [
        ({"tool_choice": "required"}, json_calls(CallsWithFormat.tool_format, BOTH)),
        (
            {"tool_choice": "required", "parallel_tool_calls": True},
            json_calls(CallsWithFormat.tool_format, BOTH),
        ),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            json_calls(CallsWithFormat.tool_format, BOTH, max_calls=1),
        ),
        ({"tool_choice": named("f")}, json_calls(CallsWithFormat.tool_format, BOTH[:1], max_calls=1)),
        (
            {"tool_choice": named("g"), "parallel_tool_calls": True},
            json_calls(CallsWithFormat.tool_format, BOTH[1:], max_calls=1),
        ),
        ({}, None),
        ({"tool_choice": "none"}, None),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, None),
    ],
    ids=str,
)
def test_a_forced_call_has_the_format_of_the_parser(body: Any, constraint: Constraint | None) -> None:
    assert constraint_of(tool_server(), **body) == constraint


@pytest.mark.parametrize("parser", [None, FakeToolCallParser])
@pytest.mark.parametrize("stream", [False, True])
def test_without_a_declared_format_forced_calls_are_json(parser: Any, stream: bool) -> None:
    server = tool_server(FORCED[:20], FORCED[20:], tools=parser)
    constraint = json_calls(FALLBACK_TOOL_FORMAT, BOTH)
    assert constraint_of(server, tool_choice="required", stream=stream) == constraint
    [choice] = chat(server, tools=TOOLS, tool_choice="required").json()["choices"]
    calls = [each["function"] for each in choice["message"]["tool_calls"]]
    assert calls == [{"name": "f", "arguments": '{"a": 1}'}, {"name": "g", "arguments": "{}"}]
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"


def test_strict_applies_to_each_tool_separately() -> None:
    server = tool_server()
    free = TriggeredTags(
        triggers=("[",),
        tags=(Tag("[f:", SCHEMA, "]"), Tag("[g:", ANY_OBJECT, "]")),
    )
    tools = [tool("f", PARAMETERS, strict=True), tool("g", PARAMETERS, strict=False)]
    assert constraint_of(server, tools=tools) == free
    assert constraint_of(server, tools=tools, tool_choice="auto") == free
    assert constraint_of(server, tools=tools, tool_choice="none") is None
    assert constraint_of(server, tools=[tool("f", PARAMETERS, strict=False)]) is None


def test_with_structured_output_the_output_may_be_a_call_instead() -> None:
    server = tool_server()
    calls = json_calls(CallsWithFormat.tool_format, BOTH)
    assert constraint_of(server, response_format={"type": "json_object"}) == AnyOf((ANY_OBJECT, calls))
    assert constraint_of(server, guided_choice=["a"]) == AnyOf((AnyOf((ConstString("a"),)), calls))
    assert constraint_of(server, guided_json={}, tool_choice="none") == JsonSchema("{}")
    assert constraint_of(server, guided_json={}, tool_choice="required") == calls
    assert constraint_of(server, guided_json={}, tools=[]) == JsonSchema("{}")


@pytest.mark.parametrize(
    ("choice", "reason"), [("required", "tool_calls"), ("auto", "tool_calls"), (named("f"), "stop")], ids=str
)
def test_the_finish_reason_is_openais(choice: Any, reason: str) -> None:
    server = tool_server()
    [answer] = chat(server, tools=TOOLS, tool_choice=choice).json()["choices"]
    assert answer["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert answer["finish_reason"] == reason
    chunks = events(chat(server, tools=TOOLS, tool_choice=choice, stream=True))
    assert chunks[-1]["choices"][0]["finish_reason"] == reason


def test_a_named_call_that_is_cut_off_has_finish_reason_length() -> None:
    server = tool_server("[f:{", "}]")
    [answer] = chat(server, tools=TOOLS, tool_choice=named("f"), max_tokens=1).json()["choices"]
    assert answer["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("parameters", "schema"),
    [
        (None, NOTHING),
        ({}, NOTHING),
        ({"properties": {}}, NOTHING),
        ({"type": "object"}, ANY_OBJECT),
        ({"$ref": "#/$defs/a", "$defs": {}}, JsonSchema('{"$ref":"#/$defs/a","$defs":{}}')),
        ({"anyOf": []}, JsonSchema('{"anyOf":[]}')),
    ],
    ids=str,
)
def test_arguments_are_an_object(parameters: Any, schema: Constraint) -> None:
    constraint = constraint_of(tool_server(), tools=[tool("f", parameters)], tool_choice=named("f"))
    assert constraint == json_calls(CallsWithFormat.tool_format, [("f", schema)], max_calls=1)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": named("h")}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": "required", "use_beam_search": True, "best_of": 2}, "use_beam_search"),
        ({"tool_choice": "required", "tools": [tool('f"', PARAMETERS)]}, "tools"),
        ({"tool_choice": "required", "tools": [tool("a b", PARAMETERS)]}, "tools"),
        ({"tool_choice": "required", "tools": [tool("a" * 201, PARAMETERS)]}, "tools"),
        ({"tool_choice": "required", "tools": [tool("f", {"type": "string"})]}, "tools"),
        ({"tool_choice": "required", "tools": [tool("f", {"type": 5})]}, "tools"),
        ({"tool_choice": "required", "tools": [tool("f", {"a": "x" * MAX_CONSTRAINT_CHARS})]}, "tools"),
        ({"tools": [tool("f"), tool('g"', strict=True)]}, "tools"),
        ({"tools": [tool("f", strict=1)]}, "tools[0].function.strict"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_an_error_about_a_tool_that_can_not_be_forced_names_the_field(body: Any, param: str) -> None:
    server = tool_server()
    response = chat(server, **{"tools": TOOLS, **body})
    assert (response.status_code, error_of(response)["param"]) == (400, param), response.text
    assert backend_of(server).prompts == []


@pytest.mark.parametrize("levels", [MAX_SCHEMA_DEPTH + 1, 400])
def test_parameters_nested_too_deeply_are_rejected_if_they_constrain(levels: int) -> None:
    parameters: dict[str, Any] = {}
    for _ in range(levels):
        parameters = {"not": parameters}
    server = tool_server()
    for body in ({"tool_choice": "required"}, {"tools": [tool("f", parameters, strict=True)]}):
        response = chat(server, **{"tools": [tool("f", parameters)], **body})
        assert (response.status_code, error_of(response)["param"]) == (400, "tools")
    assert chat(server, tools=[tool("f", parameters)]).status_code in (200, 400)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": named("f")}, "tool_choice"),
        ({"tools": [*TOOLS, tool("h", strict=True)]}, "tools[2].function.strict"),
        ({"guided_json": {}}, "guided_json"),
    ],
    ids=str,
)
def test_without_a_grammar_backend_calls_can_not_be_forced(body: Any, param: str) -> None:
    server = tool_server(card={})
    error = error_of(chat(server, **{"tools": TOOLS, **body}))
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")
    assert chat(server, tools=TOOLS).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [tool("f", strict=True)]}, "tools[0].function.strict"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=str,
)
def test_an_error_about_a_parser_without_a_format_names_the_parser(body: Any, param: str) -> None:
    server = tool_server(tools=FakeToolCallParser, config={"tool_call_parser": "calls"})
    error = error_of(chat(server, **{"tools": TOOLS, **body}))
    assert error["param"] == param
    assert "'calls'" in error["message"]


def test_without_a_parser_only_forced_calls_work() -> None:
    server = tool_server(tools=None)
    for body in ({}, {"tool_choice": "auto"}, {"guided_json": {}}):
        assert error_of(chat(server, tools=TOOLS, **body))["param"] == "tools"
