"""The base class of reasoning parsers."""

import pytest
from msgspec import structs

from fllm import ParserContext, ParserEvent, Reasoning, Text
from fllm.constraints import AnyOf, Concat, ConstString, JsonSchema, TextUntil
from fllm.parsing.reasoning_parser import SPACE, ReasoningParserBase, Space
from fllm.testing import ReasoningParserContract, parse

ANSWER = JsonSchema('{"type":"object"}')
ENOUGH = Concat((TextUntil("</why>"), SPACE, ANSWER))


class Whole(ReasoningParserBase):
    """Declares everything that there is to declare."""

    opening = ("<why>", "<because>")
    closing = ("</why>", "</because>")
    implicit_end = ("<call>",)
    initial_state = "before"
    template_flags = ("think",)
    stray_markers = "reasoning"
    header = "so:"
    answer_tags = ("<what>", "</what>")
    reasoning_space = Space(start=True, end=True)
    answer_space = Space(start=True, end=True)


class Inside(Whole):
    initial_state = "inside"


class Strict(Inside):
    stray_markers = "text"


@pytest.mark.parametrize(
    ("parser", "kwargs", "text", "expected"),
    [
        (Inside, {}, "plain", [Text("plain")]),
        (Inside, {"think": True}, "plain", [Text("plain")]),
        (Inside, {"think": False}, "plain", [Text("plain")]),
        (Inside, {}, "<why>a</why>b", [Reasoning("a"), Text("b")]),
        (ReasoningParserBase, {}, "plain", [Reasoning("plain")]),
    ],
)
def test_reasoning_that_is_optional_begins_with_a_marker_if_auto_selected_the_parser(
    parser: type[ReasoningParserBase], kwargs: dict[str, bool], text: str, expected: list[ParserEvent]
) -> None:
    context = ParserContext(prompt="Hello", template_kwargs=kwargs, auto_selected=True)
    assert parse(parser(context), [text]) == expected


def test_reasoning_that_the_prompt_opens_needs_no_marker_if_auto_selected_the_parser() -> None:
    context = ParserContext(prompt="Hello<why>\n", auto_selected=True)
    assert parse(Inside(context), ["plain"]) == [Reasoning("plain")]


SAMPLES = (
    "<why>so: a </why> <what> b </what> c <because>d<call>e",
    "\n<why>so",
    "<why> </why> \n",
    "a <what>b",
    "</why>a<what></what>",
)


class TestTheLaw(ReasoningParserContract):
    parser = Whole
    samples = SAMPLES
    markers = Whole.visible_tokens
    fragments = ("<wh", "y>", "</", "so:", "so", " ", "\n", "<be")


class TestTheLawInside(TestTheLaw):
    parser = Inside


class TestTheLawOfStrays(TestTheLaw):
    parser = Strict


class Constrained(Whole):
    def __init__(self, context: ParserContext) -> None:
        super().__init__(structs.replace(context, constrained=True))


class TestTheLawWhereTheAnswerIsConstrained(TestTheLaw):
    parser = Constrained

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Only the first of the markers are any."""
        assert all(isinstance(event, Reasoning | Text) for event in events)
        assert "<because>" not in text or "<because>" in "".join(map(str, events))


def read(parser: ReasoningParserBase, text: str) -> list[ParserEvent]:
    return parse(parser, [text])


def test_each_part_has_its_markers_and_the_white_space_beside_them_is_none_of_it() -> None:
    assert read(Whole(ParserContext()), SAMPLES[0]) == [
        Reasoning("a"),
        Text("bc"),
        Reasoning("d"),
        Text("<call>e"),
    ]


def test_all_markers_are_visible() -> None:
    assert Whole.visible_tokens == (
        "<why>",
        "<because>",
        "</why>",
        "</because>",
        "<call>",
        "<what>",
        "</what>",
    )


def test_white_space_is_held_back_only_while_it_may_be_dropped() -> None:
    parser = Inside(ParserContext())
    assert parser.feed("a ") == [Reasoning("a")]
    assert parser.feed("b") == [Reasoning(" b")]
    assert parser.feed("</why>\n") == []
    assert parser.feed("c") == [Text("c")]


@pytest.mark.parametrize(
    ("parser", "prompt", "kwargs", "expected"),
    [
        (Inside, "", {}, ENOUGH),
        (Whole, "", {}, AnyOf((Concat((SPACE, ConstString("<why>"), *ENOUGH.parts)), ANSWER))),
        (Whole, "<why>\n", {}, ENOUGH),
        (Whole, "", {"think": True}, ENOUGH),
        (Inside, "<why></why>", {}, ANSWER),
        (Inside, "", {"think": False}, ANSWER),
    ],
)
def test_a_constraint_waits_for_the_end_of_the_reasoning(
    parser: type[ReasoningParserBase], prompt: str, kwargs: dict[str, bool], expected: object
) -> None:
    context = ParserContext(prompt=prompt, template_kwargs=kwargs)
    assert parser(context).constrain_output(ANSWER) == expected


@pytest.mark.parametrize(
    ("parser", "text", "expected"),
    [
        (Inside, "a <call> b</why>\n\n{}", [Reasoning("a <call> b"), Text("{}")]),
        (Inside, "a</because>b</why>{}", [Reasoning("a</because>b"), Text("{}")]),
        (Inside, '<why>a</why>{"b": "<why>c</why>"}', [Reasoning("a"), Text('{"b": "<why>c</why>"}')]),
        (Inside, 'a</why>{"b": "<what> "}', [Reasoning("a"), Text('{"b": "<what> "}')]),
        (Whole, '{"b": "</why><why>"}', [Text('{"b": "</why><why>"}')]),
        (Whole, "<why>so:a</why> {}", [Reasoning("a"), Text("{}")]),
    ],
)
def test_a_constrained_answer_comes_out_as_it_is(
    parser: type[ReasoningParserBase], text: str, expected: list[ParserEvent]
) -> None:
    assert read(parser(ParserContext(constrained=True)), text) == expected


def test_asking_for_the_constraint_does_not_change_the_parser() -> None:
    parser = Inside(ParserContext())
    parser.constrain_output(ANSWER)
    assert read(parser, SAMPLES[0]) == read(Inside(ParserContext()), SAMPLES[0])


def test_a_constrained_answer_without_reasoning_is_not_searched_for_markers() -> None:
    parser = Inside(ParserContext(prompt="</why>", constrained=True))
    assert read(parser, ' "<why></why>" ') == [Text(' "<why></why>" ')]
