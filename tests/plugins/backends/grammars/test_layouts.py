"""JSON in the layouts in which models write it, and what is forced: in the tokens of the tokenizer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.random_texts import rejected_at

from fllm import Constraint, GrammarCompiler, Vocabulary
from fllm.constraints import (
    ANY_OBJECT,
    AnyOf,
    Concat,
    ConstString,
    Grammar,
    JsonSchema,
    Regex,
    Tag,
    TriggeredTags,
)
from fllm.tokenizer import Tokenizer

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "zip": {"type": ["string", "null"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
}
VALUE = {"name": 'Ann, "A"', "age": 41, "tags": ["a", "b"], "address": {"city": "서울", "zip": None}}
LAYOUTS = [
    json.dumps(VALUE, ensure_ascii=False),
    json.dumps(VALUE, ensure_ascii=False, separators=(",", ":")),
    json.dumps(VALUE, ensure_ascii=False, indent=2),
    json.dumps(VALUE, ensure_ascii=False, indent=4),
    json.dumps(VALUE, ensure_ascii=False, indent="\t"),
    json.dumps(VALUE, ensure_ascii=False, indent=2).replace("\n", "\r\n"),
    '{ "name": "x", "age": 1, "tags": [ "a" ], "address": { "city": "y" } }',
    '{"name": "x", "age": 1, "tags": [\n  "a"\n], "address": {"city":"y"}}',
    '{\n  "name": "x",\n  "age": 1,\n  "tags": ["a", "b"],\n  "address": {"city": "y"}\n}',
]


@pytest.mark.parametrize("text", LAYOUTS)
@pytest.mark.parametrize(
    "constraint", [JsonSchema(json.dumps(PERSON)), ANY_OBJECT], ids=["schema", "any object"]
)
def test_each_layout_is_allowed(
    constraint: Constraint, text: str, llguidance: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    assert rejected_at(llguidance.compile(constraint), vocabulary, text) is None


@pytest.mark.parametrize(
    "text",
    [
        '{  "name": "x"',
        '{"name" : "x"',
        '{"name":  "x"',
        '{"name": "x",  "age"',
        '{"name": "x" , "age"',
        '{"name": "x","age"',
        "{\n\n",
        "{\n" + 41 * " ",
        ' {"name"',
    ],
)
def test_white_space_is_bounded(text: str, llguidance: GrammarCompiler, vocabulary: Vocabulary) -> None:
    rejected = rejected_at(llguidance.compile(JsonSchema(json.dumps(PERSON))), vocabulary, text)
    assert rejected is not None
    assert len(rejected) < len(text)


SPACED, COMPACT, LINES, *_ = LAYOUTS
TAGS = TriggeredTags(triggers=("<f",), tags=(Tag("<f=first>", JsonSchema(json.dumps(PERSON)), "</f>"),))
SCHEMA = JsonSchema(json.dumps(PERSON))
FORCED: list[tuple[Constraint, str, str]] = [
    (SCHEMA, SPACED, """name| "|age|":| "|tags|":| "|address|":|city| "|zip|":|}}"""),
    (SCHEMA, COMPACT, """name|age|tags|":|,"|address|":|city|zip|}}"""),
    (SCHEMA, LINES, """name|":|age|":|tags|":|address|":|city|":|zip|":"""),
    (ConstString("Yes, of course."), "Yes, of course.", "Yes|,| of| course|."),
    (AnyOf((ConstString("the first"), ConstString("the second"))), "the second", "the"),
    (Regex("id-[0-9]{2} done"), "id-47 done", "id|-| done"),
    (Grammar('root ::= "a = " [0-9] " + b"'), "a = 7 + b", "a| =| | +| b"),
    (
        Concat((ConstString("<call>"), SCHEMA, ConstString("</call>"))),
        f"<call>{SPACED}</call>",
        """<|call|>|name| "|age|":| "|tags|":| "|address|":|city| "|zip|":|}}|</|call|>""",
    ),
    (
        TAGS,
        f"x <f=first>{SPACED}</f>",
        """=|first|>|name| "|age|":| "|tags|":| "|address|":|city| "|zip|":|}}|</|f""",
    ),
]


@pytest.mark.parametrize(("constraint", "text", "forced"), FORCED)
def test_the_tokens_of_a_text_are_those_of_the_tokenizer_and_many_are_forced(
    constraint: Constraint,
    text: str,
    forced: str,
    llguidance: GrammarCompiler,
    vocabulary: Vocabulary,
    tokenizer: Tokenizer,
) -> None:
    canonical = tokenizer.encode(text, add_special_tokens=False)
    tokens, found = write(llguidance.compile(constraint).matcher(), canonical)
    assert tokens == canonical
    assert "|".join(map(tokenizer.token_text, found)) == forced


def write(matcher: Any, canonical: list[int]) -> tuple[list[int], list[int]]:
    """Write a text as a model does that samples canonical tokens. Return all tokens, and the forced ones."""
    tokens: list[int] = []
    forced: list[int] = []
    while len(tokens) < len(canonical):
        new = matcher.forced_tokens() or [canonical[len(tokens)]]
        forced += matcher.forced_tokens()
        assert all(matcher.accept_token(each) for each in new)
        tokens += new
    assert matcher.is_accepting
    return tokens, forced
