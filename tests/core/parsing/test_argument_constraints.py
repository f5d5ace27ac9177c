"""The constraints on arguments, by their schema."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec.structs import replace

from fllm import RequestError, Tool
from fllm.constraints import AnyOf, Concat, Constraint, ConstString, JsonSchema, Regex, Repeat, TextUntil
from fllm.parsing.argument_constraints import (
    join_parts,
    named_arguments,
    plain_text,
    python_value,
    tagged_arguments,
)
from fllm.parsing.tag_scanner import TagFormat
from fllm.parsing.tool_parameters import Parameters

TAGS = TagFormat(
    opening="<f ", after_name=">", before_key="<", after_key=(">",), after_value="</>", end="</f>"
)


@pytest.mark.parametrize(
    ("schema", "allowed", "refused"),
    [
        ({"type": "string", "minLength": 1}, ["a", "Tokyo\n"], ["", "<"]),
        ({"type": "string", "maxLength": 2}, ["", "ab"], ["abc"]),
        ({"type": "string", "pattern": "^[0-9]+$"}, ["12"], ["", "a1", "1a"]),
        ({"type": "string", "pattern": "[0-9]"}, ["1", "a1b"], ["", "ab", "1<"]),
        ({"type": "string", "pattern": "^a"}, ["a", "ab"], ["ba"]),
        ({"type": "string", "pattern": "^a|b$"}, ["a", "b"], ["xa", "bx"]),
        ({"type": "string", "pattern": r"a\\$"}, ["a\\"], ["a"]),
        ({"type": "string", "pattern": r"a\$"}, ["a$b"], ["a"]),
        ({"type": "string", "format": "date"}, ["2024-02-28"], ["2024-13-01", "today"]),
        ({"type": ["integer", "string"], "maxLength": 2}, ["12", "ab"], ["123", "abc"]),
        ({"type": ["string", "null"], "minLength": 5}, ["Tokyo", "null"], ["abc"]),
        (
            {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]},
            ["ab", "null"],
            ["abc"],
        ),
        ({"anyOf": [{"enum": ["a", 1]}, {"type": "integer"}]}, ["a"], ["1", "2", "b"]),
        ({"oneOf": [{"$ref": "#/$defs/Digits"}, {"type": "null"}]}, ["12", "null"], ["a", "nul"]),
        ({"maxLength": 2}, ["ab"], ["abc"]),
        ({"maxLength": 2, "anyOf": [{"type": "string"}, {"type": "null"}]}, ["ab"], ["abc"]),
    ],
)
def test_a_string_that_may_not_be_any_obeys_its_schema(
    schema: dict[str, Any], allowed: list[str], refused: list[str]
) -> None:
    root = {"$defs": {"Digits": {"type": "string", "pattern": "^[0-9]+$"}}}
    form = plain_text(schema, Parameters(root))
    assert isinstance(form, AnyOf)
    pattern = "|".join(
        f"(?:{option.pattern})" if isinstance(option, Regex) else re.escape(option.text)
        for option in form.options
        if isinstance(option, Regex | ConstString)
    )
    assert all(re.fullmatch(pattern, text) for text in allowed)
    assert not any(re.fullmatch(pattern, text) for text in refused)


CIRCLE = {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "string"}]}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "integer"},
        {},
        {"allOf": [{"type": "string"}]},
        {"type": ["string", "null"], "title": "Note"},
        {"anyOf": [{"type": "string"}, {"type": "array", "uniqueItems": True}]},
        {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "string"}]},
        {"$ref": "#/$defs/A"},
    ],
)
def test_anything_else_has_no_limits(schema: dict[str, Any]) -> None:
    assert plain_text(schema, Parameters(CIRCLE)) is None


def test_what_can_be_no_string_after_all_is_json() -> None:
    schema = {"allOf": [{"type": ["string", "integer"]}, {"type": "integer"}]}
    assert isinstance(plain_text(schema, Parameters({})), JsonSchema)


def test_limits_of_one_option_hold_in_python_as_well() -> None:
    schema = {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "string", "pattern": "^a+$"}]}
    assert isinstance(python_value(schema, Parameters({})), JsonSchema)


def test_what_no_grammar_can_obey_is_refused() -> None:
    with pytest.raises(RequestError, match="format"):
        plain_text({"type": "string", "format": "regex"}, Parameters({}))


A, B, C = ConstString("a"), ConstString("b"), ConstString("c")


def optional(part: Constraint) -> Constraint:
    return Repeat(item=part, min=0, max=1)


def test_separators_stand_only_between() -> None:
    comma_b, comma_c = (Concat((ConstString(","), each)) for each in (B, C))
    assert join_parts([A], [B], ",") == Concat((A, optional(comma_b)))
    assert join_parts([A, B], [C], ",") == Concat((A, comma_b, optional(comma_c)))
    assert join_parts([], [B, C], ",") == AnyOf(
        (Concat((B, optional(comma_c))), Concat((C,)), ConstString(""))
    )


def test_keys_that_a_notation_can_not_hold_are_left_out() -> None:
    tool = Tool("f", parameters={"properties": {"a b": {"type": "null"}, "<": {}, "c": {"type": "null"}}})
    assert named_arguments("=", ", ", python_value)(tool) == AnyOf(
        (Concat((Concat((ConstString("c"), ConstString("="), ConstString("None"))),)), ConstString(""))
    )
    assert isinstance(form := tagged_arguments(TAGS)(tool), Concat)
    assert len(form.parts) == 2


def test_a_tool_that_says_nothing_may_be_given_any_argument() -> None:
    form = tagged_arguments(TAGS)(Tool("f", parameters={"type": "object"}))
    assert isinstance(form, Repeat)
    assert form.item == Concat(
        (
            ConstString("<"),
            Regex(r"[\w$][\w.$-]*"),
            ConstString(">"),
            TextUntil("</>", ("<f ", "<")),
            ConstString(""),
        )
    )


def test_a_free_value_has_nothing_in_it_that_ends_or_breaks_the_call() -> None:
    tags = replace(TAGS, before_key="<p ", cut=("</f>\n</call>",))
    form = tagged_arguments(tags)(
        Tool("f", parameters={"properties": {"a": {"type": "string"}}, "required": ["a"]})
    )
    value = TextUntil("</>", ("<f ", "</f>\n</call>", "<p "))
    assert form == Concat(
        (Concat((ConstString("<p "), ConstString("a"), ConstString(">"), value, ConstString(""))),)
    )
