"""Tools of a request become functions, and a choice among them."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from fllm import AllowedToolChoice, ChatTool, FunctionDefinition, NamedFunction, NamedToolChoice, RequestError
from fllm.requests.chat import AllowedTool, AllowedTools
from fllm_dialects.responses.protocol.tools import ToolChoice, ToolChoiceParam, ToolParam, ToolRef
from fllm_dialects.responses.tools import CalledTool, ToolSet, read_choice, read_tools

FUNCTION = {"type": "function", "name": "read", "description": "Reads.", "parameters": {"type": "object"}}
CUSTOM = {"type": "custom", "name": "patch", "description": "Patches."}
REGEX = {**CUSTOM, "name": "digits", "format": {"type": "grammar", "syntax": "regex", "definition": "a|b"}}
LARK = {
    **CUSTOM,
    "name": "lark",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'},
}
RECURSIVE = {
    **LARK,
    "name": "recursive",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "(" start? ")"'},
}
SEARCH = {"type": "web_search", "external_web_access": False}


def read(*tools: dict[str, Any], choice: ToolChoice | None = None) -> ToolSet:
    """Return the tools as a client sends them."""
    return read_tools(msgspec.convert(tools, list[ToolParam]), choice)


def choose(choice: Any, *tools: dict[str, Any]) -> Any:
    """Return the choice among these tools."""
    return read_choice(msgspec.convert(choice, ToolChoice), read(*tools))


def test_a_function_is_passed_on() -> None:
    result = read({**FUNCTION, "strict": True}, {"type": "function", "name": "now", "strict": False})
    assert result.functions == [
        ChatTool(FunctionDefinition("read", "Reads.", {"type": "object"}, strict=True)),
        ChatTool(FunctionDefinition("now")),
    ]
    assert result.called == {"read": CalledTool("function", "read"), "now": CalledTool("function", "now")}


def test_a_custom_tool_is_a_function_with_one_text() -> None:
    result = read(CUSTOM, REGEX, LARK)
    plain, regex, lark = (tool.function for tool in result.functions)
    assert plain.parameters == {
        "type": "object",
        "properties": {"input": {"type": "string", "description": "The input of the tool, as free text."}},
        "required": ["input"],
        "additionalProperties": False,
    }
    assert regex.parameters
    assert regex.parameters["properties"]["input"]["pattern"] == "^(?:a|b)$"
    assert lark.parameters
    assert lark.parameters["properties"]["input"] == {
        "type": "string",
        "description": 'The input of the tool, as text of this Lark grammar:\nstart: "x"',
    }
    assert (plain.strict, regex.strict, lark.strict) == (None, True, None)
    assert result.called["patch"] == CalledTool("custom", "patch")
    assert result.called["lark"].forcible


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "custom", "name": "lark"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "lark"}]},
    ],
)
def test_a_lark_grammar_is_enforced_in_forced_calls(choice: Any) -> None:
    """Otherwise not: Codex offers such a tool to all servers, and not every server enforces grammars."""
    choice = msgspec.convert(choice, ToolChoice)
    result = read(LARK, choice=choice)
    [tool] = result.functions
    assert tool.function.strict
    assert tool.function.parameters
    assert tool.function.parameters["properties"]["input"]["pattern"] == "^(?:x)$"
    read_choice(choice, result)
    allowed = ToolChoiceParam(type="allowed_tools", mode="auto", tools=[ToolRef(type="custom", name="lark")])
    assert read(LARK, choice=allowed) == read(LARK, choice="auto") == read(LARK) != result


def test_a_pattern_can_have_classes_of_unicode() -> None:
    words = {"type": "grammar", "syntax": "regex", "definition": r"\p{L}+"}
    [tool] = read({**CUSTOM, "format": words}).functions
    assert tool.function.parameters
    assert tool.function.parameters["properties"]["input"]["pattern"] == r"^(?:\p{L}+)$"


def test_the_tools_of_a_namespace_have_its_name_before_theirs() -> None:
    result = read(
        {
            "type": "namespace",
            "name": "agents",
            "description": "Sub-agents.",
            "tools": [FUNCTION, {**CUSTOM, "name": "send"}],
        },
        {"type": "namespace", "name": "mcp__db__", "tools": [{"type": "function", "name": "query"}]},
    )
    functions = [tool.function for tool in result.functions]
    assert [function.name for function in functions] == ["agents__read", "agents__send", "mcp__db__query"]
    assert [function.description for function in functions] == ["Sub-agents.\n\nReads.", "Patches.", None]
    assert result.called["agents__send"] == CalledTool("custom", "send", "agents")
    assert result.paths == ["tools[0].tools[0]", "tools[0].tools[1]", "tools[1].tools[0]"]


def test_the_web_search_that_codex_always_offers_is_not_offered_to_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "fllm.server"):
        result = read(FUNCTION, SEARCH, choice="auto")
    assert [tool.type for tool in result.offered] == ["function"]
    assert "web_search is not offered to the model" in caplog.text


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([SEARCH], None),
        ([FUNCTION, SEARCH], "required"),
        ([FUNCTION, {"type": "web_search"}], "auto"),
    ],
)
def test_a_web_search_that_is_requested_is_refused(tools: list[dict[str, Any]], choice: ToolChoice) -> None:
    with pytest.raises(RequestError, match="'web_search' are not supported: the server runs no hosted tools"):
        read(*tools, choice=choice)


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_preview",
        "web_search_2025_08_26",
        "file_search",
        "code_interpreter",
        "image_generation",
        "computer_use_preview",
        "local_shell",
        "shell",
        "apply_patch",
        "tool_search",
        "mcp",
    ],
)
def test_a_hosted_tool_is_refused_with_its_name(kind: str) -> None:
    with pytest.raises(
        RequestError, match=f"'{kind}' are not supported: the server runs no hosted"
    ) as caught:
        read(FUNCTION, {"type": kind, "server_label": "x", "container": {"type": "auto"}})
    assert (caught.value.param, caught.value.code) == ("tools[1].type", "unsupported_parameter")


@pytest.mark.parametrize(
    ("tool", "param", "message"),
    [
        ({"type": "functions", "name": "x"}, "tools[0].type", "there is no such type"),
        ({"type": "function", "function": {"name": "x"}}, "tools[0].name", "is next to its `type`"),
        ({"type": "namespace", "tools": [FUNCTION]}, "tools[0].name", "is missing"),
        (
            {"type": "namespace", "name": "n", "tools": [{"type": "shell"}]},
            "tools[0].tools[0].type",
            "'shell' are not supported",
        ),
        (
            {**CUSTOM, "format": {"type": "grammar", "definition": "x"}},
            "tools[0].format.syntax",
            "requires it",
        ),
        (
            {**CUSTOM, "format": {"type": "grammar", "syntax": "regex", "definition": "a)|(b"}},
            "tools[0].format.definition",
            "is not a regular expression: unbalanced parenthesis",
        ),
        (
            {**CUSTOM, "format": {"type": "grammar", "syntax": "regex", "definition": "(" * 5000}},
            "tools[0].format.definition",
            "is not a regular expression",
        ),
        (
            {**CUSTOM, "format": {"type": "grammar", "syntax": "lark"}},
            "tools[0].format.definition",
            "requires it",
        ),
        (
            {**CUSTOM, "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
            "tools[0].format.definition",
            "is not a Lark grammar: it has no rule 'x'",
        ),
    ],
)
def test_an_invalid_tool_is_refused_with_its_path(tool: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read(tool)
    assert caught.value.param == param


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(RequestError, match="two tools 'read'") as caught:
        read(FUNCTION, {**CUSTOM, "name": "read"})
    assert caught.value.param == "tools[1].name"


def test_a_choice_names_a_function() -> None:
    named = NamedToolChoice(NamedFunction("read"))
    assert choose("required", FUNCTION) == "required"
    assert choose({"type": "function", "name": "read"}, FUNCTION) == named
    assert choose({"type": "custom", "name": "patch"}, CUSTOM) == NamedToolChoice(NamedFunction("patch"))
    space = {"type": "namespace", "name": "n", "tools": [FUNCTION]}
    named = NamedToolChoice(NamedFunction("n__read"))
    assert choose({"type": "function", "name": "read", "namespace": "n"}, space) == named


def test_allowed_tools_are_functions() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "read"}]}
    assert choose(allowed, FUNCTION, CUSTOM) == AllowedToolChoice(
        AllowedTools(tools=[AllowedTool(NamedFunction("read"))], mode="required")
    )
    both = {
        "type": "allowed_tools",
        "tools": [{"type": "function", "name": "read"}, {"type": "custom", "name": "lark"}],
    }
    assert choose(both, FUNCTION, LARK) == AllowedToolChoice(
        AllowedTools(tools=[AllowedTool(NamedFunction("read")), AllowedTool(NamedFunction("lark"))])
    )


@pytest.mark.parametrize(
    ("choice", "param", "message"),
    [
        ({"type": "function", "name": "x"}, "tool_choice", "no function tool 'x' in `tools`"),
        ({"type": "custom", "name": "read"}, "tool_choice", "no custom tool 'read' in `tools`"),
        ({"type": "function"}, "tool_choice", "no function tool ''"),
        ({"type": "web_search_preview"}, "tool_choice.type", "'web_search_preview' is not supported"),
        ({"type": "allowed_tools", "tools": []}, "tool_choice.tools", "names no tool"),
        (
            {"type": "allowed_tools", "tools": [{"type": "function", "name": "x"}]},
            "tool_choice.tools[0]",
            "no function tool 'x'",
        ),
        ({"type": "custom", "name": "recursive"}, "tool_choice", "can't be forced"),
        ("required", "tool_choice", "can't be forced"),
    ],
)
def test_an_invalid_choice_is_refused(choice: Any, param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        choose(choice, FUNCTION, RECURSIVE)
    assert caught.value.param == param
