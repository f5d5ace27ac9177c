"""Outputs of reasoning models; streamed and whole outputs give the same events."""

import pytest

from fllm import ParserContext, Reasoning, Text
from fllm.testing import ReasoningParserContract, parse
from fllm_parsers.reasoning.deepseek_r1 import DeepSeekR1Parser

OPEN, CLOSE = "<think>", "</think>"

ROWS = {
    "both tags": ("<think>abc</think>xyz", "abc", "xyz"),
    "opened by the prompt": ("abc</think>xyz", "abc", "xyz"),
    "no tag": ("abc", "abc", ""),
    "no end": ("<think>abc", "abc", ""),
    "no reasoning": ("</think>xyz", "", "xyz"),
    "empty reasoning": ("<think></think>xyz", "", "xyz"),
    "white space as reasoning": ("<think>\n\n</think>\n\nxyz", "\n\n", "\n\nxyz"),
    "no answer": ("abc</think>", "abc", ""),
    "text before the tag": ("pre<think>abc</think>xyz", "preabc", "xyz"),
    "white space before the tag": ("\n <think>\nabc\n</think>\nxyz", "\nabc\n", "\nxyz"),
    "white space before the end": ("\n</think>xyz", "\n", "xyz"),
    "white space alone": ("\n", "\n", ""),
    "white space before text": ("\nabc</think>xyz", "\nabc", "xyz"),
    "a second block": ("<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
    "a block within the first": ("<think>a<think>b</think>c</think>d", "ab", "c</think>d"),
    "half an opening tag": ("<thi", "<thi", ""),
    "half an opening tag behind white space": ("\n<thi", "\n<thi", ""),
    "half a closing tag": ("abc</thin", "abc</thin", ""),
    "half a tag in the answer": ("</think>a <thin", "", "a <thin"),
    "what looks like a tag": ("a<b></b><thinking></think>c", "a<b></b><thinking>", "c"),
    "nothing": ("", "", ""),
}

CLOSED = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


class TestTheLaw(ReasoningParserContract):
    parser = DeepSeekR1Parser
    samples = tuple(text for text, _, _ in ROWS.values())
    markers = (OPEN, CLOSE)
    fragments = ("<", ">", "<thi", "nk>", "</thi", " ", "\n")


class TestTheLawWhereThePromptClosedTheThinking(TestTheLaw):
    context = ParserContext(prompt=CLOSED)
    max_examples = 50


@pytest.mark.parametrize(("text", "reasoning", "answer"), ROWS.values(), ids=ROWS)
def test_reasoning_ends_at_the_first_closing_tag(text: str, reasoning: str, answer: str) -> None:
    expected = [event for event in (Reasoning(reasoning), Text(answer)) if event.text]
    assert parse(DeepSeekR1Parser(ParserContext()), [text]) == expected


@pytest.mark.parametrize("answer", ["xyz", " \n{}", "<thi"])
def test_everything_is_answer_where_the_prompt_closed_the_thinking(answer: str) -> None:
    assert parse(DeepSeekR1Parser(ParserContext(prompt=CLOSED)), [answer]) == [Text(answer)]


def test_tags_do_not_leak_where_the_prompt_closed_the_thinking() -> None:
    parser = DeepSeekR1Parser(ParserContext(prompt=CLOSED))
    assert parse(parser, ["<think>abc</think>xyz"]) == [Text("abcxyz")]


@pytest.mark.parametrize(
    "prompt", ["a</think>b<|user|>why?<|assistant|>", f"{CLOSED}b<|assistant|><think>\n"]
)
def test_an_earlier_turn_does_not_close_the_thinking_of_this_one(prompt: str) -> None:
    expected = [Reasoning("abc"), Text("xyz")]
    assert parse(DeepSeekR1Parser(ParserContext(prompt=prompt)), ["abc</think>xyz"]) == expected


def test_text_passes_at_once() -> None:
    parser = DeepSeekR1Parser(ParserContext())
    assert parser.feed("abc") == [Reasoning("abc")]
    assert parser.feed(" a < b") == [Reasoning(" a < b")]
    assert parser.feed("</think>x") == [Text("x")]
    assert parser.feed("y<") == [Text("y")]
    assert parser.feed("z") == [Text("<z")]
    assert parser.finish() == []


def test_the_tags_reach_the_parser_where_they_are_special_tokens() -> None:
    assert set(DeepSeekR1Parser.visible_tokens) == {OPEN, CLOSE}
