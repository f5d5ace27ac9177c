"""How arguments may be written, by their schema."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec.structs import replace

from fllm import RequestError, Tool
from fllm.constraints import Constraint, Exactly, InOrder, JsonSchema, OneOf, Regex, Repeated, UpTo
from fllm.parsing.argument_constraints import named, plain_text, python_value, separated, tagged
from fllm.parsing.tag_reader import Tags
from fllm.parsing.tool_parameters import Parameters

TAGS = Tags(opening="<f ", after_name=">", before_key="<", after_key=(">",), after_value="</>", end="</f>")


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
    assert isinstance(form, OneOf)
    pattern = "|".join(
        f"(?:{option.pattern})" if isinstance(option, Regex) else re.escape(option.text)
        for option in form.options
        if isinstance(option, Regex | Exactly)
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
        plain_text({"type": "string", "format": "poem"}, Parameters({}))


A, B, C = Exactly("a"), Exactly("b"), Exactly("c")


def perhaps(part: Constraint) -> Constraint:
    return Repeated(item=part, least=0, most=1)


def test_separators_stand_only_between() -> None:
    comma_b, comma_c = (InOrder((Exactly(","), each)) for each in (B, C))
    assert separated([A], [B], ",") == InOrder((A, perhaps(comma_b)))
    assert separated([A, B], [C], ",") == InOrder((A, comma_b, perhaps(comma_c)))
    assert separated([], [B, C], ",") == OneOf((InOrder((B, perhaps(comma_c))), InOrder((C,)), Exactly("")))


def test_keys_that_a_notation_can_not_hold_are_left_out() -> None:
    tool = Tool("f", parameters={"properties": {"a b": {"type": "null"}, "<": {}, "c": {"type": "null"}}})
    assert named("=", ", ", python_value)(tool) == OneOf(
        (InOrder((InOrder((Exactly("c"), Exactly("="), Exactly("None"))),)), Exactly(""))
    )
    assert isinstance(form := tagged(TAGS)(tool), InOrder)
    assert len(form.parts) == 2


def test_a_tool_that_says_nothing_may_be_given_any_argument() -> None:
    form = tagged(TAGS)(Tool("f", parameters={"type": "object"}))
    assert isinstance(form, Repeated)
    assert form.item == InOrder(
        (Exactly("<"), Regex(r"[\w$][\w.$-]*"), Exactly(">"), UpTo("</>", ("<f ", "<")), Exactly(""))
    )


def test_a_free_value_has_nothing_in_it_that_ends_or_breaks_the_call() -> None:
    tags = replace(TAGS, before_key="<p ", cut=("</f>\n</call>",))
    form = tagged(tags)(Tool("f", parameters={"properties": {"a": {"type": "string"}}, "required": ["a"]}))
    value = UpTo("</>", ("<f ", "</f>\n</call>", "<p "))
    assert form == InOrder((InOrder((Exactly("<p "), Exactly("a"), Exactly(">"), value, Exactly(""))),))
