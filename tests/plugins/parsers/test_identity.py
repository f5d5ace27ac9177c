"""Parsers that pass the output on word for word."""

from __future__ import annotations

import pytest

from fllm import ParserContext, ParserEvent, Text
from fllm.constraints import ConstString
from fllm.interfaces import EVERY_SPECIAL_TOKEN
from fllm.testing import ReasoningParserContract, parse, plugins_with
from fllm_parsers import plugin
from fllm_parsers.reasoning.identity import IdentityParser, MiniMaxM2AppendThinkParser, RawParser

OURS = plugins_with(plugin, installed=False)

WRITTEN = '<think>\na</think>\n\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call><|im_end|>'


def read(name: str, text: str) -> list[ParserEvent]:
    return parse(OURS.reasoning_parsers.load(name)(ParserContext(prompt="<think>\n")), text)


def test_the_output_stays_as_it_is() -> None:
    assert read("identity", WRITTEN) == [Text(WRITTEN)]
    assert read("raw", WRITTEN) == [Text(WRITTEN)]
    assert parse(OURS.tool_parsers.load("raw")(ParserContext()), WRITTEN) == [Text(WRITTEN)]
    assert read("identity", "") == []


def test_raw_receives_every_special_token_and_identity_none() -> None:
    assert OURS.tool_parsers.load("raw").visible_tokens == (EVERY_SPECIAL_TOKEN,)
    assert OURS.reasoning_parsers.load("raw").visible_tokens == (EVERY_SPECIAL_TOKEN,)
    assert OURS.reasoning_parsers.load("identity").visible_tokens == ()


@pytest.mark.parametrize("text", ["a</think>b", "a", ""])
def test_the_tag_of_the_prompt_precedes_the_output(text: str) -> None:
    assert read("minimax_m2_append_think", text) == [Text(f"<think>{text}")]


def test_there_is_no_reasoning_before_constrained_content() -> None:
    assert IdentityParser(ParserContext()).constrain_output(ConstString("a")) == ConstString("a")


class TestIdentity(ReasoningParserContract):
    parser = IdentityParser
    samples = (WRITTEN, "", "a")
    markers = ("<think>",)


class TestRaw(TestIdentity):
    parser = RawParser


def test_the_appended_tag_does_not_depend_on_the_division() -> None:
    assert parse(MiniMaxM2AppendThinkParser(ParserContext()), [WRITTEN]) == [Text(f"<think>{WRITTEN}")]
