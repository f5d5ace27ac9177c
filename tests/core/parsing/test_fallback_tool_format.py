"""The server's own format of calls: what it allows, and the parser that reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.chat import CallFormat
from fllm.chat.tool_prompt import EXAMPLE_CALL
from fllm.events import ParserEvent, Text, ToolArguments, ToolStart, merge_events
from fllm.interfaces import ParserContext
from fllm.parsing.fallback_tool_format import FALLBACK_TOOL_FORMAT, FallbackToolCallParser
from fllm.testing import ToolParserContract
from fllm.values import Tool

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=3)
CALLS = st.lists(st.tuples(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), OBJECTS), min_size=1, max_size=3)


def parsed(text: str, *names: str) -> list[ParserEvent]:
    tools = tuple(Tool(name, None, {}) for name in names)
    parser = FallbackToolCallParser(ParserContext(tools=tools))
    return merge_events([*parser.feed(text), *parser.finish()])


def written(calls: list[tuple[str, Any]]) -> str:
    """As a model writes calls under the constraint of the format, whose literals are not JSON's."""
    format = FALLBACK_TOOL_FORMAT
    texts = [f"{format.begin}{name}{format.middle}{json.dumps(value)}{format.end}" for name, value in calls]
    return f"{format.before}{format.between.join(texts)}{format.after}"


class TestForcedCallsParser(ToolParserContract):
    parser = FallbackToolCallParser
    samples = (
        written([("f", {"a": [1, "}, {"]}), ("g", {})]),
        written([("f", {"a": 1})])[:-4],
        'no call: {"name": "f"}',
    )
    fragments = ('{"name": "f", "parameters": {}}', "[", "]", ", ")


@given(CALLS)
def test_it_reads_what_its_format_writes(calls: list[tuple[str, Any]]) -> None:
    assert parsed(written(calls)) == [
        event
        for i, (name, value) in enumerate(calls)
        for event in (ToolStart(i, name), ToolArguments(i, json.dumps(value)))
    ]


def test_what_it_reads_is_json() -> None:
    assert json.loads(written([("f", {"a": 1}), ("g", {})])) == [
        {"name": "f", "parameters": {"a": 1}},
        {"name": "g", "parameters": {}},
    ]


@pytest.mark.parametrize(
    "text", ["", "[", "Sure!", '[{"name": "f", "par', '[{"name": "f", "parameters": {}', '[{"name": "f"}]']
)
def test_what_is_cut_off_or_no_call_is_content(text: str) -> None:
    assert parsed(text) == ([Text(text)] if text else [])


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "f", "parameters": {"a": 1}}]',
        ' {"name": "f", "arguments": {"a": 1}}\n',
        '```json\n[\n{"name": "f", "parameters": {"a": 1}}\n]\n```',
        '```\n{"name": "f", "parameters": {"a": 1}}\n```\n',
    ],
)
def test_calls_may_be_in_a_code_block_or_without_a_list(text: str) -> None:
    assert parsed(text, "f") == [ToolStart(0, "f"), ToolArguments(0, '{"a": 1}')]


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "Ada", "parameters": {"a": 1}}]',
        '```json\n{"name": "Ada", "arguments": {}}\n```',
        'See [{"name": "f", "parameters": {}}]',
        "[1](http://example.org)",
        '{"answer": 42}',
    ],
)
def test_what_is_not_a_call_of_a_tool_is_content(text: str) -> None:
    assert parsed(text, "f") == [Text(text)]


def test_a_call_of_a_tool_is_emitted_as_it_is_written() -> None:
    parser = FallbackToolCallParser(ParserContext(tools=(Tool("f", None, {}),)))
    assert parser.feed('[{"name": "f", "parameters": {"a": "') == [
        ToolStart(0, "f"),
        ToolArguments(0, '{"a": "'),
    ]
    assert parser.feed("long ") == [ToolArguments(0, "long ")]


def test_the_model_is_told_the_format_that_the_parser_reads() -> None:
    call_format = CallFormat(
        **{name: getattr(FALLBACK_TOOL_FORMAT, name) for name in CallFormat.__struct_fields__}
    )
    example = call_format.instructions().partition("format: ")[2].partition("\n")[0]
    assert parsed(example) == [
        ToolStart(0, EXAMPLE_CALL["name"]),
        ToolArguments(0, json.dumps(EXAMPLE_CALL["arguments"])),
    ]


def test_a_call_before_the_cut_is_whole() -> None:
    text = '[{"name": "f", "parameters": {}}, {"name": "g", "para'
    assert parsed(text)[:2] == [ToolStart(0, "f"), ToolArguments(0, "{}")]
