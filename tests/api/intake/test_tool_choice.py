"""Tool choice: the constraint of the output, and the parser of the calls."""

from __future__ import annotations

import re
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
    Regex,
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


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [*map(named, names)]}}


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


def test_only_allowed_tools_can_be_called() -> None:
    server = tool_server()
    format = CallsWithFormat.tool_format
    assert constraint_of(server, tool_choice=allowed("required", "f")) == json_calls(format, BOTH[:1])
    assert constraint_of(server, tool_choice=allowed("required", "g", "f")) == json_calls(format, BOTH)
    single = constraint_of(server, tool_choice=allowed("required", "g"), parallel_tool_calls=False)
    assert single == json_calls(format, BOTH[1:], max_calls=1)
    free = TriggeredTags(triggers=("[",), tags=(Tag("[f:", ANY_OBJECT, "]"),))
    assert constraint_of(server, tool_choice=allowed("auto", "f")) == free
    assert constraint_of(server, tool_choice=allowed("auto", "f", "g")) is None
    exact = TriggeredTags(triggers=("[",), tags=(Tag("[f:", SCHEMA, "]"),))
    tools = [tool("f", PARAMETERS, strict=True), tool("g", strict=True)]
    assert constraint_of(server, tools=tools, tool_choice=allowed("auto", "f")) == exact
    either = constraint_of(server, tool_choice=allowed("auto", "f"), response_format={"type": "json_object"})
    assert either == AnyOf((ANY_OBJECT, json_calls(format, BOTH[:1])))


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_the_prompt_has_also_the_tools_that_are_not_allowed(mode: str) -> None:
    server = tool_server()
    for choice in ("auto", allowed(mode, "f")):
        assert chat(server, tools=TOOLS, tool_choice=choice).status_code == 200
    everything, some = backend_of(server).prompts
    assert everything.token_ids == some.token_ids


def test_with_structured_output_the_output_may_be_a_call_instead() -> None:
    server = tool_server()
    calls = json_calls(CallsWithFormat.tool_format, BOTH)
    assert constraint_of(server, response_format={"type": "json_object"}) == AnyOf((ANY_OBJECT, calls))
    assert constraint_of(server, guided_choice=["a"]) == AnyOf((AnyOf((ConstString("a"),)), calls))
    assert constraint_of(server, guided_json={}, tool_choice="none") == JsonSchema("{}")
    assert constraint_of(server, guided_json={}, tool_choice="required") == calls
    assert constraint_of(server, guided_json={}, tools=[]) == JsonSchema("{}")


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("required", "tool_calls"),
        ("auto", "tool_calls"),
        (named("f"), "stop"),
        (allowed("required", "f"), "tool_calls"),
    ],
    ids=str,
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
        ({"tool_choice": allowed("auto", "f", "h")}, "tool_choice"),
        ({"tool_choice": allowed("required", "f"), "tools": []}, "tool_choice"),
        ({"tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
        ({"tool_choice": allowed("never", "f")}, "tool_choice.allowed_tools.mode"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
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
        ({"tool_choice": allowed("required", "f")}, "tool_choice"),
        ({"tool_choice": allowed("auto", "f")}, "tool_choice"),
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
        ({"tools": TOOLS, "tool_choice": allowed("auto", "f")}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=str,
)
def test_an_error_about_a_parser_without_a_format_names_the_parser(body: Any, param: str) -> None:
    server = tool_server(tools=FakeToolCallParser, config={"tool_call_parser": "calls"})
    error = error_of(chat(server, **{"tools": TOOLS, **body}))
    assert error["param"] == param
    assert "'calls'" in error["message"]


@pytest.mark.parametrize("body", [{}, {"tool_choice": "auto"}, {"n": 2}], ids=str)
@pytest.mark.parametrize("parallel", [True, False])
def test_without_a_parser_calls_have_the_format_of_the_server(body: Any, parallel: bool) -> None:
    server = tool_server(FORCED[:20], FORCED[20:], tools=None)
    body = {"tools": TOOLS, "parallel_tool_calls": parallel, **body}
    assert constraint_of(server, **body) is None
    f, g = {"name": "f", "arguments": '{"a": 1}'}, {"name": "g", "arguments": "{}"}
    for choice in chat(server, **body).json()["choices"]:
        assert [each["function"] for each in choice["message"]["tool_calls"]] == ([f, g] if parallel else [f])
        assert choice["message"]["content"] is None
        assert choice["finish_reason"] == "tool_calls"


def test_without_a_parser_calls_are_streamed_as_they_are_written() -> None:
    server = tool_server('[{"name": "f", "para', 'meters": {"a": "', "one ", 'two"}}]', tools=None)
    deltas = [chunk["choices"][0]["delta"] for chunk in events(chat(server, tools=TOOLS, stream=True))]
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    assert calls[0]["name"] == "f"
    assert [call.get("arguments") for call in calls] == ["", '{"a": "', "one ", 'two"}']
    assert not any(delta.get("content") for delta in deltas)


@pytest.mark.parametrize("text", ["Sure.", '[{"name": "Ada", "parameters": {}}]', '{"name": "f"}'])
def test_without_a_parser_other_output_is_content(text: str) -> None:
    server = tool_server(text, tools=None)
    [choice] = chat(server, tools=TOOLS).json()["choices"]
    assert choice["message"]["content"] == text
    assert "tool_calls" not in choice["message"]


def test_without_a_parser_strict_allows_text_or_valid_calls() -> None:
    constraint = constraint_of(tool_server(tools=None), tools=[tool("f", PARAMETERS, strict=True), tool("g")])
    assert isinstance(constraint, AnyOf)
    [text, calls] = constraint.options
    assert isinstance(text, Regex)
    assert calls == json_calls(FALLBACK_TOOL_FORMAT, (("f", SCHEMA), ("g", ANY_OBJECT)))
    for sample in ("Sure.", " \nIt is [1].", "3 {}"):
        assert re.fullmatch(text.pattern, sample)
    for sample in (FORCED, f"\n{FORCED}", f"```json\n{FORCED}", '{"name": "f", "parameters": {}}'):
        assert not re.fullmatch(text.pattern, sample)


def test_without_a_parser_the_output_is_the_constrained_text_or_calls() -> None:
    constraint = constraint_of(tool_server(tools=None), guided_json={})
    assert constraint == AnyOf((JsonSchema("{}"), json_calls(FALLBACK_TOOL_FORMAT, BOTH)))


@pytest.mark.parametrize("exclude", [True, False])
def test_an_option_decides_whether_tools_that_may_not_be_called_are_shown(exclude: bool) -> None:
    server = tool_server(FORCED, config={"exclude_tools_when_tool_choice_none": exclude})
    [choice] = chat(server, tools=TOOLS, tool_choice="none").json()["choices"]
    assert choice["message"]["content"] == FORCED
    prompt = server.tokenizer.decode(backend_of(server).prompts[-1].token_ids, skip_special_tokens=False)
    assert ('"name": "g"' in prompt) is not exclude
