"""Outputs of gpt-oss on its channels."""

import pytest

from fllm import ParserContext, ParserEvent, Reasoning, Text
from fllm.constraints import AnyOf, Concat, ConstString, JsonSchema, TextUntil
from fllm.testing import ReasoningParserContract, parse
from fllm_parsers.reasoning.openai_gptoss import OpenAIGptOssParser

WHY = "<|channel|>analysis<|message|>a<|end|>"
NEXT = "<|start|>assistant"
WHAT = "<|channel|>final<|message|>b"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"x": 1}<|call|>'
EARLY = ' to=functions.f<|channel|>commentary <|constrain|>json<|message|>{"x": 1}<|call|>'
IN_HISTORY = '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"x": 1}<|call|>'

ROWS: dict[str, tuple[str, list[ParserEvent]]] = {
    "reasoning and answer": (f"{WHY}{NEXT}{WHAT}", [Reasoning("a"), Text("b")]),
    "an answer at once": (WHAT, [Text("b")]),
    "the end of the answer": (f"{WHAT}<|return|>", [Text("b")]),
    "cut off in the reasoning": ("<|channel|>analysis<|message|>a <", [Reasoning("a <")]),
    "cut off in a header": (f"{WHY}{NEXT}<|channel|>fin", [Reasoning("a")]),
    "an answer of a declared kind": ("<|channel|>final <|constrain|>json<|message|>{}", [Text("{}")]),
    "a call": (f"{WHY}{NEXT}{CALL}", [Reasoning("a"), Text(NEXT + CALL)]),
    "a call at once": (CALL, [Text(CALL)]),
    "a call whose end is a stop token": (CALL[: -len("<|call|>")], [Text(CALL[: -len("<|call|>")])]),
    "a call with its tool before the channel": (EARLY, [Text(EARLY)]),
    "a call as in the history": (f"{WHY}{IN_HISTORY}", [Reasoning("a"), Text(IN_HISTORY)]),
    "a call on the channel of analysis": (
        "<|channel|>analysis to=python<|message|>1<|call|>",
        [Text("<|channel|>analysis to=python<|message|>1<|call|>")],
    ),
    "two calls": (f"{CALL}{NEXT}{CALL}", [Text(f"{CALL}{NEXT}{CALL}")]),
    "words before a call": (
        f"{WHY}{NEXT}<|channel|>commentary<|message|>c<|end|>{NEXT}{CALL}",
        [Reasoning("a"), Text(f"c{NEXT}{CALL}")],
    ),
    "no end between messages": (f"<|channel|>analysis<|message|>a{WHAT}", [Reasoning("a"), Text("b")]),
    "no marker": ("b to=c", [Text("b to=c")]),
    "what looks like a recipient": (" to=c", [Text(" to=c")]),
    "half a recipient": (" t", [Text(" t")]),
    "white space": (" ", [Text(" ")]),
    "an unknown channel": ("<|channel|>aside<|message|>b", [Text("b")]),
    "nothing": ("", []),
}


class TestTheLaw(ReasoningParserContract):
    parser = OpenAIGptOssParser
    samples = tuple(text for text, _ in ROWS.values())
    markers = OpenAIGptOssParser.visible_tokens
    fragments = ("analysis", "final", "commentary", " to=", "functions.f", "<|", "|>", "<|cha", "nnel|>")


@pytest.mark.parametrize(("text", "expected"), ROWS.values(), ids=ROWS)
def test_analysis_is_reasoning_and_calls_are_left_as_they_are(text: str, expected: list[ParserEvent]) -> None:
    assert parse(OpenAIGptOssParser(ParserContext()), [text]) == expected


def test_text_passes_at_once() -> None:
    parser = OpenAIGptOssParser(ParserContext())
    assert parser.feed("<|channel|>analysis<|message|>a") == [Reasoning("a")]
    assert parser.feed(" b") == [Reasoning(" b")]
    assert parser.feed(f"<|end|>{NEXT}<|channel|>final") == []
    assert parser.feed("<|message|>c") == [Text("c")]


def test_a_constraint_leaves_room_for_reasoning_and_for_the_header_of_an_answer() -> None:
    answer = JsonSchema("{}")
    reasoning = Concat(
        (ConstString("<|channel|>analysis<|message|>"), TextUntil("<|end|>"), ConstString(NEXT))
    )
    final = Concat((ConstString("<|channel|>final<|message|>"), answer))
    expected = Concat((AnyOf((reasoning, ConstString(""))), AnyOf((final, answer))))
    assert OpenAIGptOssParser(ParserContext()).constrain_output(answer) == expected


@pytest.mark.parametrize(
    ("message", "text", "expected"),
    [
        ("The answer is", " to=b", [Text(" to=b")]),
        ("The answer is", "", []),
        ("<|channel|>analysis<|message|>a", f" b<|end|>{NEXT}{WHAT}", [Reasoning(" b"), Text("b")]),
        (f"{WHY}{NEXT}<|channel|>final<|message|>c <|", "b", [Text("b")]),
    ],
)
def test_a_message_that_is_continued_is_answer_unless_its_reasoning_is_open(
    message: str, text: str, expected: list[ParserEvent]
) -> None:
    assert parse(OpenAIGptOssParser(ParserContext(continued_message=message)), [text]) == expected


def test_a_constraint_goes_on_where_the_message_does() -> None:
    answer = JsonSchema("{}")
    assert OpenAIGptOssParser(ParserContext(continued_message="a")).constrain_output(answer) == answer
    opened = ParserContext(continued_message="<|channel|>analysis<|message|>a")
    final = Concat((ConstString("<|channel|>final<|message|>"), answer))
    expected = Concat((TextUntil("<|end|>"), ConstString(NEXT), AnyOf((final, answer))))
    assert OpenAIGptOssParser(opened).constrain_output(answer) == expected


@pytest.mark.parametrize("constrained", [False, True])
def test_the_forced_end_of_an_analysis_begins_the_final_message(constrained: bool) -> None:
    parser = OpenAIGptOssParser(ParserContext(constrained=constrained))
    limit = parser.limit_reasoning(5)
    assert not limit.inside
    assert limit.reopens
    text = f"{limit.opening[0]}a{limit.end}b"
    assert parse(parser, [text]) == [Reasoning("a"), Text("b")]
