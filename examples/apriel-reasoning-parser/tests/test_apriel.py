"""The parser, as the server uses it."""

from __future__ import annotations

from fllm_apriel import plugin
from fllm_apriel.parser import BEGIN, END, AprielParser

from fllm import ParserContext, ParserEvent, Reasoning, Text
from fllm.constraints import Concat, ConstString, TextUntil
from fllm.testing import ModelTraits, ReasoningParserContract, detect, parse, plugins_with

FOUR = f"First, 2 + 2.\nIt is 4.\n{BEGIN}\n4, of course.\n{END}\n"


class TestContract(ReasoningParserContract):
    parser = AprielParser
    samples = (FOUR, f"Thinking on{BEGIN}4", "no end of\n\nthinking [BEGIN", f"{BEGIN}\n\n{END}\n\nmore")
    fragments = ("[BEGIN", "FINAL", "RESPONSE]", "[END FINAL", "\n\n")
    markers = (BEGIN, END)


def events(*pieces: str, prompt: str = "Here are my reasoning steps:\n") -> list[ParserEvent]:
    return parse(AprielParser(ParserContext(prompt=prompt)), pieces)


def test_the_markers_and_their_line_breaks_are_in_neither_part() -> None:
    assert events(FOUR) == [Reasoning("First, 2 + 2.\nIt is 4."), Text("4, of course.")]


def test_without_a_final_response_all_is_reasoning() -> None:
    assert events("I wonder [BEGIN FINAL") == [Reasoning("I wonder [BEGIN FINAL")]


def test_the_last_marker_may_be_missing() -> None:
    assert events(f"Hm.\n{BEGIN}\n4") == [Reasoning("Hm."), Text("4")]


def test_a_prompt_that_ends_the_reasoning_leaves_only_the_answer() -> None:
    assert events(f"4\n{END}", prompt=f"Hm.\n{BEGIN}\n") == [Text("4")]


def test_reasoning_streams_before_the_marker_is_certain() -> None:
    parser = AprielParser(ParserContext())
    assert parser.feed("Let me see.\n[BEG") == [Reasoning("Let me see.")]
    assert parser.feed("IN again") == [Reasoning("\n[BEGIN again")]


def test_a_constraint_begins_after_the_reasoning() -> None:
    yes = ConstString("yes")
    assert AprielParser(ParserContext()).constrain_output(yes) == Concat(
        (TextUntil(BEGIN), ConstString("\n"), yes)
    )
    assert AprielParser(ParserContext(prompt=BEGIN)).constrain_output(yes) == yes


def test_auto_finds_it_by_the_marker_in_a_template() -> None:
    registry = plugins_with(plugin).reasoning_parsers
    assert detect(registry, ModelTraits(f"End your reasoning with {BEGIN}", "".__eq__)) == ["apriel"]


def test_the_plugin_loads_and_offers_the_parser() -> None:
    assert plugins_with(plugin, installed=False).reasoning_parsers.load("apriel").factory is AprielParser
