"""The messages of Muse Glimmer: to itself, to the user and to tools."""

from __future__ import annotations

import pytest

from fllm import ParserContext, ParserEvent, Reasoning, Text
from fllm.testing import ReasoningParserContract, parse
from fllm_parsers.reasoning.muse_glimmer import MuseGlimmerParser

CALL = '<atem:function_calls>\n<atem:invoke name="f">\n</atem:invoke>\n</atem:function_calls>'
ROWS: list[tuple[str, list[ParserEvent]]] = [
    (" to=self<|message|>a<|eom|><|start|>assistant to=user<|message|>b<|eot|>", [Reasoning("a"), Text("b")]),
    ("to=user<|message|>b<|eot|>", [Text("b")]),
    (
        f" to=self<|message|>a<|eom|><|start|>assistant to=f<|message|>{CALL}<|eot|>",
        [Reasoning("a"), Text(CALL)],
    ),
    (f" to=self<|message|>I could write {CALL}, but", [Reasoning(f"I could write {CALL}, but")]),
    ("no header", [Text("no header")]),
    (" to", [Text(" to")]),
    (" to=us", [Text(" to=us")]),
]


@pytest.mark.parametrize(("text", "expected"), ROWS)
def test_only_messages_to_itself_are_reasoning(text: str, expected: list[ParserEvent]) -> None:
    assert parse(MuseGlimmerParser(ParserContext()), [text]) == expected
    assert parse(MuseGlimmerParser(ParserContext()), text) == expected


class TestTheLaw(ReasoningParserContract):
    parser = MuseGlimmerParser
    samples = tuple(text for text, _ in ROWS)
    markers = MuseGlimmerParser.visible_tokens
    fragments = (" to=self", "to=user", " to=f", "assistant")


def test_the_forced_end_of_the_reasoning_begins_the_answer() -> None:
    parser = MuseGlimmerParser(ParserContext())
    limit = parser.limit_reasoning(5)
    assert parse(parser, [f" {limit.opening[0]}a{limit.end}b"]) == [Reasoning("a"), Text("b")]
