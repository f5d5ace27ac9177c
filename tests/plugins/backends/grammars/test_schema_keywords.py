"""What each keyword allows and excludes, as the table in ``docs/api.md`` says."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from support.random_texts import rejected_at

from fllm import CompiledGrammar, Constraint, GrammarContext, RequestError, Vocabulary
from fllm.constraints import JsonSchema
from fllm_backends.grammars.llguidance import (
    LLGuidance,
)

Compile = Callable[[Constraint], CompiledGrammar]


INT: Any = {"type": "integer"}
STR: Any = {"type": "string"}
ZOD_INT = {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}
ZOD_UUID = (
    "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
)
NIL = "00000000-0000-0000-0000-000000000000"
TAGGED = {
    "oneOf": [
        {"type": "object", "properties": {"t": {"const": "a", "default": "a"}, "x": INT}},
        {"type": "object", "properties": {"t": {"const": "b", "default": "b"}}},
    ],
    "discriminator": {"propertyName": "t"},
}
DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
KIND = {"type": "object", "properties": {"kind": {"enum": ["a", "b", "c"]}, "n": INT}, "required": ["kind"]}
KIND_A = {"properties": {"kind": {"const": "a"}}}

ROWS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "bounds of 2^53": (ZOD_INT, [0, 2**53 - 1, 1 - 2**53], [2**53]),
    "bounds beyond 64 bits": ({"type": "integer", "maximum": 10**20}, [10**17, -5], [0.5]),
    "a bound of a big float": ({"type": "number", "maximum": 3.4e38, "minimum": -3.4e38}, [0.5, -7], ["x"]),
    "exclusive as a boolean": ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, [1], [0]),
    "any name": ({"propertyNames": STR, "additionalProperties": INT}, [{"a": 1}], [{"a": "x"}]),
    "listed names": (
        {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": INT},
        [{}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}],
        [{"c": 1}, {"a": "x"}],
    ),
    "listed names, required": (
        {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": INT, "required": ["a", "b"]},
        [{"a": 1, "b": 2}],
        [{"a": 1}],
    ),
    "names with a pattern": (
        {"type": "object", "propertyNames": {"pattern": "^x-"}, "additionalProperties": INT},
        [{"x-a": 1}, {}],
        [{"y": 1}, {"x-": "s"}],
    ),
    "names with a length": ({"propertyNames": {"minLength": 2, "maxLength": 3}}, [{"ab": 1}], [{"a": 1}]),
    "other names": ({"propertyNames": {"not": {"const": "__proto__"}}}, [{"a": 1}], [{"__proto__": 1}]),
    "a pattern beside a format": (
        {"type": "string", "format": "uuid", "pattern": ZOD_UUID},
        [NIL, "123E4567-e89b-42d3-a456-426614174000"],
        ["x"],
    ),
    "a pattern beside an unknown format": (
        {"type": "string", "format": "ulid", "pattern": "^[0-7][0-9A-Z]{3}$"},
        ["0ABC"],
        ["x"],
    ),
    "a format and a length": (
        {"type": "string", "format": "uri", "minLength": 1, "maxLength": 30},
        ["https://example.com/a"],
        ["x", "https://example.com/" + "a" * 30],
    ),
    "a pattern and a length": ({"type": "string", "pattern": "^a+$", "minLength": 2}, ["aa"], ["a", "ab"]),
    "several patterns": (
        {"type": "string", "allOf": [{"pattern": "^a"}, {"pattern": "z$"}, {"pattern": "-"}]},
        ["a-z"],
        ["az", "a-"],
    ),
    **{
        f"the format {name}": ({"type": "string", "format": name}, ["any text"], [1])
        for name in ("uuid4", "password", "path", "binary", "base64", "x")
    },
    "a format beside a constant": ({"const": NIL, "format": "uuid"}, [NIL], ["x"]),
    "an encoding": ({"type": "string", "contentEncoding": "base64"}, ["", "YQ=="], ["YQ"]),
    "a default tag": (
        TAGGED,
        [{"t": "a"}, {"t": "a", "x": 1}, {"t": "b"}],
        [{}, {"x": 1}, {"t": "b", "x": 1}],
    ),
    "options that require what the other lacks": (
        {
            "oneOf": [
                {"properties": {"a": INT}, "required": ["a"]},
                {"properties": {"b": INT}, "required": ["b"]},
            ]
        },
        [{"a": 1}, {"b": 1}],
        [{"a": 1, "b": 1}, {}],
    ),
    "options that overlap": (
        {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 5}]},
        [6, -1],
        [3, 0, 5],
    ),
    "a set": ({"type": "array", "uniqueItems": True, "items": STR}, [["a", "b"], []], [[1]]),
    "a set of listed values": (
        {"uniqueItems": True, "items": {"$ref": "#/$defs/E"}, "$defs": {"E": {"enum": ["a", "b", "c"]}}},
        [[], ["c", "a"], ["a", "b", "c"]],
        [["a", "a"], ["a", "b", "a"]],
    ),
    "a set of booleans": (
        {"type": "array", "uniqueItems": True, "items": {"type": "boolean"}, "minItems": 1},
        [[True], [False, True]],
        [[], [True, True]],
    ),
    "a set of many values": (
        {"type": "array", "uniqueItems": True, "items": {"enum": [1, 2, 3, 4, 5]}},
        [[5, 1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 1]],
    ),
    "multiples with bounds": (
        {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 10},
        [0, 5, 10],
        [7, 15, -5],
    ),
    "multiples of a decimal": ({"type": "number", "multipleOf": 0.01}, [0.25, 3, -1.5], [0.125]),
    "multiples of both": (
        {"allOf": [{"multipleOf": 4}, {"multipleOf": 6}], "type": "integer"},
        [12, 0],
        [4, 6],
    ),
    "Pydantic's Decimal": (
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": DECIMAL}]},
        [1.5, "1.50", "-3", ".5"],
        ["", "x", "."],
    ),
    "look-ahead": (
        {"type": "string", "pattern": r"^(?=.*\d)(?=.*[a-z])[a-z\d]{3,4}$"},
        ["ab1", "1b11"],
        ["abc", "123", "a1"],
    ),
    "brackets in a class": ({"type": "string", "pattern": r"^[^[\]@&&]+\<$"}, ["ab<"], ["a[b<", "&<", "ab"]),
    "negative look-ahead": (
        {"type": "string", "pattern": r"^(?!\.)(?!.*\.\.)(?!no$|never$)[a-z.]+(?<!\.)$"},
        ["a", "a.b.c", "none"],
        [".a", "a..b", "no", "never", "a."],
    ),
    "a tuple of draft 7": (
        {"type": "array", "items": [INT, STR], "additionalItems": False, "minItems": 2},
        [[1, "a"]],
        [[1], [1, "a", 2]],
    ),
    "a tuple with more items": (
        {"type": "array", "items": [INT], "additionalItems": STR},
        [[1], [1, "a", "b"]],
        [[1, 2]],
    ),
    "nullable": ({"type": "string", "nullable": True}, ["a", None], [1]),
    "nullable values": ({"enum": ["a"], "nullable": True}, ["a", None], ["b"]),
    "not a type": ({"not": {"type": ["string", "object", "array"]}}, [1, None, True], ["a", {}]),
    "not a pattern": ({"not": {"pattern": "^a"}}, ["b", ""], ["a", 1]),
    "if a pattern": (
        {"type": "string", "if": {"pattern": "^a"}, "then": {"maxLength": 2}},
        ["a", "ab", "bcd"],
        ["abc"],
    ),
    "no word in a text": (
        {"type": "string", "pattern": r"^(?!.*no)(?=.*\d)[a-z\d]+(?<!_x)$"},
        ["n1", "1on"],
        ["no1", "1no", "on", "1_x"],
    ),
    "not a value": ({"type": "string", "not": {"const": "ab"}}, ["", "a", "abc", "b"], ["ab"]),
    "not a listed value": (
        {"type": "integer", "minimum": 0, "not": {"enum": [0, 3]}},
        [1, 2, 4],
        [0, 3, -1],
    ),
    "not a value of several": ({"enum": ["a", "b", 1], "not": {"const": "a"}}, ["b", 1], ["a"]),
    "not a property": ({"properties": {"a": INT, "b": {"not": {}}}}, [{"a": 1}, {}], [{"b": 1}]),
    "not both": (
        {"properties": {"a": INT, "b": INT}, "not": {"required": ["a", "b"]}},
        [{}, {"a": 1}, {"b": 1}],
        [{"a": 1, "b": 1}],
    ),
    "if then": (
        {**KIND, "if": KIND_A, "then": {"required": ["n"]}},
        [{"kind": "a", "n": 1}, {"kind": "b"}, {"kind": "c", "n": 1}],
        [{"kind": "a"}],
    ),
    "if then for each of many values": (
        {
            "type": "object",
            "properties": {"kind": {"enum": list("abcdefghijkl")}, **dict.fromkeys("ABCDEFGHIJKL", INT)},
            "required": ["kind"],
            "allOf": [
                {
                    "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                    "then": {"required": [kind.upper()]},
                }
                for kind in "abcdefghijkl"
            ],
        },
        [{"kind": "a", "A": 1}, {"kind": "l", "A": 1, "L": 1}],
        [{"kind": "a"}, {"kind": "l", "A": 1}],
    ),
    "if else": (
        {**KIND, "if": KIND_A, "else": {"properties": {"n": {"minimum": 5}}}},
        [{"kind": "a", "n": 1}, {"kind": "b", "n": 5}],
        [{"kind": "b", "n": 1}],
    ),
    "contains": (
        {"type": "array", "items": {"type": ["integer", "string"]}, "contains": INT},
        [[1, "a"]],
        [[]],
    ),
    "contains at most": (
        {"type": "array", "contains": INT, "minContains": 2, "maxContains": 3},
        [[1, 2], [1, 2, 3]],
        [[1], [1, 2, 3, 4], ["a", "b"]],
    ),
    "dependentRequired": (
        {"properties": {"a": INT, "b": INT}, "dependentRequired": {"a": ["b"]}},
        [{}, {"b": 1}, {"a": 1, "b": 1}],
        [{"a": 1}],
    ),
    "dependencies of draft 7": (
        {"properties": {"a": INT, "b": INT}, "dependencies": {"a": ["b"]}},
        [{}, {"a": 1, "b": 1}],
        [{"a": 1}],
    ),
    "dependentSchemas": (
        {
            "properties": {"a": INT, "b": INT},
            "dependentSchemas": {"a": {"properties": {"b": {"minimum": 5}}}},
        },
        [{"b": 1}, {"a": 1, "b": 5}],
        [{"a": 1, "b": 1}],
    ),
    "minProperties": (
        {"properties": {"a": INT, "b": INT, "c": INT}, "additionalProperties": False, "minProperties": 2},
        [{"a": 1, "c": 1}, {"a": 1, "b": 1, "c": 1}],
        [{}, {"b": 1}],
    ),
    "maxProperties": (
        {"properties": {"a": INT, "b": INT, "c": INT}, "maxProperties": 2},
        [{}, {"a": 1, "c": 1}],
        [{"a": 1, "b": 1, "c": 1}],
    ),
    "minProperties of an open object": (
        {"properties": {"a": INT, "b": INT}, "additionalProperties": INT, "minProperties": 1},
        [{"a": 1}, {"b": 1}],
        [{}],
    ),
    "patterns of names": (
        {"properties": {"id": INT}, "patternProperties": {"^x": INT, "^y": STR}},
        [{"id": 1, "x1": 2, "y": "z"}, {}],
        [{"x1": "z"}, {"z": 1}],
    ),
    "a property that matches a pattern": (
        {"properties": {"a": {}, "b": {}, "c": INT}, "patternProperties": {"a|c": INT, "b": False}},
        [{"a": 1, "c": 2}],
        [{"a": "x"}, {"b": 1}, {"c": "x"}],
    ),
    "patterns that overlap": (
        {"type": "object", "patternProperties": {"a": INT, "b": STR}},
        [{"a": 1, "b": "x"}],
        [{"ab": 1}, {"ab": "x"}, {"a": "x"}],
    ),
    "closed by unevaluatedProperties": (
        {
            "type": "object",
            "allOf": [{"properties": {"a": INT}, "required": ["a"]}, {"properties": {"b": STR}}],
            "unevaluatedProperties": False,
        },
        [{"a": 1}, {"a": 1, "b": "x"}],
        [{"a": 1, "c": 1}, {}],
    ),
    "closed by the unevaluatedProperties of another schema": (
        {"allOf": [{"properties": {"a": INT}}, {"properties": {"b": INT}, "unevaluatedProperties": False}]},
        [{"b": 1}, {}],
        [{"a": 1}],
    ),
    "closed by unevaluatedItems": (
        {"prefixItems": [INT], "allOf": [{"prefixItems": [True, STR]}], "unevaluatedItems": False},
        [[1, "a"], [1]],
        [[1, "a", 2], ["a"]],
    ),
    "open beside a name that is not allowed": (
        {"properties": {"a": False}, "additionalProperties": INT},
        [{"b": 1}, {}],
        [{"a": 1}],
    ),
    "a reference to a property": (
        {"properties": {"a": {"minimum": 5, "type": "integer"}, "b": {"$ref": "#/properties/a"}}},
        [{"a": 5, "b": 6}],
        [{"b": 1}],
    ),
    "references by name": (
        {
            "properties": {
                "a": {"$ref": "#node"},
                "b": {"$ref": "other"},
                "c": {"$ref": "http://x/y#/$defs/n"},
            },
            "$id": "http://x/y",
            "$defs": {"n": {"$anchor": "node", "type": "integer"}, "m": {"$id": "other", "type": "string"}},
        },
        [{"a": 1, "b": "x", "c": 2}],
        [{"a": "x"}, {"b": 1}, {"c": "x"}],
    ),
    "required on a property": (
        {"properties": {"a": {"type": "string", "required": True}}},
        [{"a": "x"}],
        [{"a": 1}],
    ),
    "an unknown keyword": ({"type": "integer", "markdownDescription": "x", "minimun": 3}, [1], ["a"]),
}


@pytest.mark.parametrize(("schema", "valid", "invalid"), ROWS.values(), ids=ROWS)
def test_a_grammar_accepts_the_valid_values_only(
    schema: Any, valid: list[Any], invalid: list[Any], compile: Compile, vocabulary: Vocabulary
) -> None:
    grammar = compile(JsonSchema(json.dumps(schema)))
    assert [each for each in valid if rejected_at(grammar, vocabulary, json.dumps(each)) is not None] == []
    assert [each for each in invalid if rejected_at(grammar, vocabulary, json.dumps(each)) is None] == []


def test_an_ignored_keyword_is_logged_when_the_schema_is_compiled(
    vocabulary: Vocabulary, caplog: pytest.LogCaptureFixture
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    caplog.set_level(logging.INFO, "fllm.grammars")
    with contextlib.closing(LLGuidance(GrammarContext(vocabulary=lambda: vocabulary))) as compiler:
        compiler.compile(JsonSchema(json.dumps(schema)))
    [line] = caplog.messages
    assert "'uniqueItems' in '#/properties/a': ignored" in line


LENIENT: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "a pattern": ({"properties": {"a": {"type": "string", "pattern": "(a)\\1"}}}, [{"a": "x"}], [{"a": 1}]),
    "overlapping options": ({"oneOf": [INT, {"type": "number"}]}, [1, 0.5], ["a"]),
    "an unknown type": (
        {"type": "object", "properties": {"a": {"type": "date"}, "b": INT}},
        [{"a": 1, "b": 2}],
        [],
    ),
    "a list of types that is none": ({"properties": {"a": {"type": "int"}}}, [{"a": "x"}], [{"b": 1}]),
    "a remote reference": ({"properties": {"a": {"$ref": "https://example.com/s.json"}}}, [{"a": [1]}], []),
}


@pytest.mark.parametrize(("schema", "valid", "invalid"), LENIENT.values(), ids=LENIENT)
def test_a_lenient_schema_ignores_what_can_not_be_enforced(
    schema: Any, valid: list[Any], invalid: list[Any], compile: Compile, vocabulary: Vocabulary
) -> None:
    grammar = compile(JsonSchema(json.dumps(schema), lenient=True))
    assert [each for each in valid if rejected_at(grammar, vocabulary, json.dumps(each)) is not None] == []
    assert [each for each in invalid if rejected_at(grammar, vocabulary, json.dumps(each)) is None] == []
    with pytest.raises(RequestError):
        compile(JsonSchema(json.dumps(schema)))
