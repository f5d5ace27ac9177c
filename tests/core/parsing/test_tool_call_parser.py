"""The base of tool-call parsers: text, markers, and what is between calls."""

from __future__ import annotations

import pytest

from fllm import ParserContext, ParserEvent, Text, ToolArguments, ToolStart
from fllm.parsing.json_tool_calls import JsonToolCallParser
from fllm.testing import ToolParserContract, parse

A = '{"name": "a", "arguments": {}}'
B = '{"name": "b", "arguments": {"x": "<call>"}}'


class ListParser(JsonToolCallParser):
    """Has everything that can be declared."""

    opening = ("<call>",)
    closing = ("</call>", "</all>")
    section_markers = ("<all>",)
    inner_markers = ("<sep>",)
    ignored_section = ("<think>", "</think>")
    skip_before = "[,"
    skip_after = "],"
    multiple_calls = True
    marker_optional = True


class OneParser(JsonToolCallParser):
    """One object behind each marker, and no more than that."""

    opening = ("<call>",)
    closing = ("</call>",)


def calls(*names: str) -> list[ParserEvent]:
    arguments = {"a": "{}", "b": '{"x": "<call>"}'}
    return [
        event
        for index, name in enumerate(names)
        for event in (ToolStart(index, name), ToolArguments(index, arguments[name]))
    ]


ROWS = {
    "a list": (f"<call>[{A}, {B}]", calls("a", "b")),
    "no marker at the beginning": (f" [{A}, {B}] ", calls("a", "b")),
    "no marker in prose": (f"see [{A}]", [Text(f"see [{A}]")]),
    "behind an aside": (f"<think>{A}</think>\n{B}", [Text(f"<think>{A}</think>"), *calls("b")]),
    "a marker within an aside": (f"<think><call>{A}</think>x", [Text(f"<think><call>{A}</think>x")]),
    "an aside without an end": (f"<think><call>{A}", [Text(f"<think><call>{A}")]),
    "white space around everything": (f" <all> <call> {A} </call> </all> ", calls("a")),
    "prose before": (f"x \n<all> <call>{A}</call></all>", [Text("x \n"), *calls("a")]),
    "prose behind": (f"<call>{A}</call></all>\n y", [*calls("a"), Text("\n y")]),
    "prose behind a list": (f"<call>[{A}] [1]", [*calls("a"), Text(" [1]")]),
    "a list without an end": (f"<call>[{A},", calls("a")),
    "no call at all": ("<all> <call> </call> </all>", []),
    "an empty call within prose": ("Done.<call></call> Bye.", [Text("Done. Bye.")]),
    "an empty section within prose": ("Done.<all> </all> Bye.", [Text("Done. Bye.")]),
    "a call that is cut off": (f"<call>{B[:-5]}", [ToolStart(0, "b"), ToolArguments(0, '{"x": "<cal')]),
    "a call that breaks": (
        '<call>{"name": "b", "arguments": {"x": 1, y}} z',
        [ToolStart(0, "b"), ToolArguments(0, '{"x": 1}'), Text(" y}} z")],
    ),
    "markers in vain": ("<all>x</call>", [Text("<all>x</call>")]),
    "the opening marker twice": (f"<call><call>{A}", [Text("<call>"), *calls("a")]),
    "a marker within a string": (f"<call>{B}", calls("b")),
    "broken, then whole": (f'<call>{{"name": }}<call>{A}', [Text('<call>{"name": }'), *calls("a")]),
    "an object that is no call": ('<call>{"x": 1} y', [Text('<call>{"x": 1} y')]),
    "nothing": ("", []),
    "white space": (" \n", [Text(" \n")]),
}


@pytest.mark.parametrize(("text", "events"), ROWS.values(), ids=ROWS)
def test_what_is_no_call_is_text_word_for_word(text: str, events: list[ParserEvent]) -> None:
    assert parse(ListParser(ParserContext()), [text]) == events
    assert parse(ListParser(ParserContext()), text) == events


def test_a_second_object_behind_one_marker_is_text_unless_calls_repeat() -> None:
    assert parse(OneParser(ParserContext()), [f"<call>{A} {A}"]) == [*calls("a"), Text(f" {A}")]


def test_a_call_begins_with_its_first_argument_and_its_arguments_come_as_they_arrive() -> None:
    parser = OneParser(ParserContext())
    assert parser.feed('x<call>{"name": "b", "arguments": {"x"') == [Text("x")]
    assert parser.feed(': "one ') == [ToolStart(0, "b"), ToolArguments(0, '{"x": "one ')]
    assert parser.feed("two\nthree") == [ToolArguments(0, "two\\nthree")]
    assert parser.feed("\\") == []
    assert parser.feed('n"') == [ToolArguments(0, '\\n"')]
    assert parser.feed("}}") == [ToolArguments(0, "}")]
    assert parser.feed("</call> y") == [Text(" y")]


def test_markers_are_visible_unless_a_parser_says_otherwise() -> None:
    class Silent(OneParser):
        visible_tokens = ()

    assert ListParser.visible_tokens == ("<call>", "</call>", "</all>", "<all>", "<sep>")
    assert Silent.visible_tokens == ()


class TestTheLawOfLists(ToolParserContract):
    parser = ListParser
    samples = tuple(text for text, _ in ROWS.values())
    fragments = (A, "<call>", "</call>", "<all>", "<think>", "</think>", "<ca", "[", "]", ",", "{", '"')


class TestTheLawOfSingleCalls(TestTheLawOfLists):
    parser = OneParser
