"""Arguments get the types that their schema says, and only those."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm import Tool
from fllm.parsing.argument_coercion import as_json, coerced, from_any_text, from_text, read_value
from fllm.parsing.tool_parameters import Parameters

ROOT: dict[str, Any] = {
    "$defs": {
        "Id": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/Nothing"}]},
        "Nothing": {"type": "null"},
        "Loop": {"$ref": "#/$defs/Loop"},
        "Tree": {"anyOf": [{"type": "array"}, {"$ref": "#/$defs/Tree"}]},
        "a/b~c": {"type": "boolean"},
    },
    "properties": {"x": {}},
}
EVERYTHING = Parameters(ROOT)
INTEGER, NUMBER, STRING = {"type": "integer"}, {"type": "number"}, {"type": "string"}
OBJECT, ARRAY, BOOLEAN = {"type": "object"}, {"type": "array"}, {"type": "boolean"}

TEXTS: list[tuple[str, Any, str]] = [
    ("5", INTEGER, "5"),
    (" 5\n", INTEGER, "5"),
    ("-007", INTEGER, "-7"),
    ("five", INTEGER, '"five"'),
    ("9" * 5000, INTEGER, json.dumps("9" * 5000)),
    ("5.0", NUMBER, "5.0"),
    (".5", NUMBER, "0.5"),
    ("nan", NUMBER, '"nan"'),
    ("true", BOOLEAN, "true"),
    ("False", BOOLEAN, "false"),
    ("yes", BOOLEAN, '"yes"'),
    ("5", STRING, '"5"'),
    (" a\n", STRING, '" a\\n"'),
    ("null", STRING, '"null"'),
    ("null", {"type": ["string", "null"]}, "null"),
    ("None", {"type": "string", "nullable": True}, "null"),
    ("none", {"type": ["string", "null"]}, '"none"'),
    ("8080", {"anyOf": [STRING, {"type": "null"}]}, '"8080"'),
    ("8080", {"oneOf": [INTEGER, STRING]}, '"8080"'),
    ("8080", {"oneOf": [INTEGER, BOOLEAN]}, "8080"),
    ("null", {"$ref": "#/$defs/Id"}, "null"),
    ("5", {"$ref": "#/$defs/Id"}, "5"),
    ("true", {"$ref": "#/$defs/a~1b~0c"}, "true"),
    ("[1]", {"$ref": "#/$defs/Tree"}, "[1]"),
    ("5", {"$ref": "#/$defs/Loop"}, '"5"'),
    ("5", {"$ref": "#/nowhere/x"}, '"5"'),
    ("5", {"$ref": "other.json#/x"}, '"5"'),
    ('{"a":  1}', OBJECT, '{"a":  1}'),
    ("{'a': True}", OBJECT, '{"a": true}'),
    ("{a}", OBJECT, '"{a}"'),
    ("[1, 2", ARRAY, '"[1, 2"'),
    ("1, b=2", ARRAY, '"1, b=2"'),
    ("[" * 9000, ARRAY, json.dumps("[" * 9000)),
    ("1", {"enum": [1, "2"]}, "1"),
    ("2", {"enum": [1, "2"]}, '"2"'),
    ("null", {"enum": ["a", None]}, "null"),
    ("7", {"const": 7}, "7"),
    ("7", {"enum": [1, 2]}, "7"),
    ("3", {"type": "int"}, "3"),
    ("3", {"type": "float"}, "3"),
    ("{}", {"properties": {}}, "{}"),
    ("5", {}, '"5"'),
    ("5", None, '"5"'),
    ("5", {"type": [["odd"]], "anyOf": 7}, '"5"'),
]


@pytest.mark.parametrize(("text", "schema", "value"), TEXTS)
def test_text_becomes_what_the_schema_allows(text: str, schema: Any, value: str) -> None:
    assert from_text(text, schema, EVERYTHING) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", "5"), (" [1]\n", "[1]"), ("high", '"high"'), ('"5"', '"\\"5\\""'), ("True", '"True"'), ("", '""')],
)
def test_where_only_strings_are_plain_the_rest_is_json(text: str, value: str) -> None:
    assert from_any_text(text) == value


NESTED = {
    "type": "object",
    "properties": {"n": INTEGER, "s": STRING, "flags": {"type": "array", "items": BOOLEAN}, "any": {}},
}


@pytest.mark.parametrize(
    ("value", "schema", "typed"),
    [
        ("12345", STRING, '"12345"'),
        ("12.50", STRING, '"12.50"'),
        ("true", STRING, '"true"'),
        ("null", STRING, '"null"'),
        ('"5"', INTEGER, "5"),
        ('"five"', INTEGER, '"five"'),
        ("5", NUMBER, "5"),
        ("1.5", {"type": ["string", "integer"]}, '"1.5"'),
        ("true", {"type": ["string", "number"]}, '"true"'),
        ('"null"', {"type": ["string", "null"]}, '"null"'),
        ("5", {}, "5"),
        ('{"n":5}', NESTED, '{"n":5}'),
        (
            '{"n":"5","s":7,"flags":["true",1],"any":"1"}',
            NESTED,
            '{"n": 5, "s": "7", "flags": [true, 1], "any": "1"}',
        ),
        ('{"n": 1e999, "s": 5}', NESTED, '{"n": 1e999, "s": 5}'),
        ("[" * 200 + "]" * 200, ARRAY, "[" * 200 + "]" * 200),
    ],
)
def test_scalars_within_json_become_what_the_schema_allows(value: str, schema: Any, typed: str) -> None:
    assert coerced(value, schema, EVERYTHING) == typed


@given(st.text() | st.sampled_from(['1,"":2', "1}", "", " 1 ", '"a"', "[1]]"]))
def test_is_json_agrees_with_python(text: str) -> None:
    try:
        json.loads(text, parse_constant=lambda constant: int(constant))
    except ValueError:
        assert as_json(text) is None
    else:
        assert as_json(text) == text


@given(st.text(alphabet="[]{}(),:'\"1=a \\", max_size=12))
def test_a_value_is_json_if_it_is_one_at_all(text: str) -> None:
    value = read_value(text)
    assert value is None or as_json(value) == value


def test_a_schema_of_alternatives_without_end_is_looked_at_once() -> None:
    options = [{"$ref": "#/$defs/Wide"}] * 50
    wide = Parameters({"$defs": {"Wide": {"anyOf": [*options, INTEGER]}}})
    assert wide.types({"$ref": "#/$defs/Wide"}) == {"integer"}


def test_alternatives_may_be_deep() -> None:
    schema: Any = INTEGER
    for _ in range(5000):
        schema = {"anyOf": [schema]}
    assert EVERYTHING.types(schema) == {"integer"}


def test_required_parameters_are_those_that_there_are() -> None:
    schema = {"properties": {"b": {}, "a": {}}, "required": ["a", "z", ["odd"]]}
    assert Parameters(schema).required == ["a"]
    assert Parameters({"properties": [], "required": 7}).required == []


def test_parameters_may_be_behind_a_reference() -> None:
    schema = {"$ref": "#/$defs/Arguments", "$defs": {"Arguments": {"properties": {"a": INTEGER}}}}
    assert [*Parameters(schema).schemas] == ["a"]


def test_a_tool_that_the_request_has_not_says_nothing() -> None:
    parameters = Parameters.of("g", [Tool("f", parameters={"properties": {"a": INTEGER}})])
    assert parameters.schemas == {}
    assert parameters.open


def test_a_parameter_by_itself_brings_what_it_refers_to() -> None:
    standalone = EVERYTHING.standalone({"$ref": "#/$defs/Id"})
    assert standalone == {**ROOT["$defs"]["Id"], "$defs": ROOT["$defs"]}


def test_a_parameter_on_its_own_keeps_references_to_other_parameters() -> None:
    root = {
        "properties": {
            "a": {"type": "integer"},
            "b": {"items": {"$ref": "#/properties/a"}},
            "c": {"$ref": "#"},
        }
    }
    parameters = Parameters(root)
    standalone = parameters.standalone(root["properties"]["b"])
    assert standalone["items"] == {"$ref": "#/$defs/parameters/properties/a"}
    assert standalone["$defs"]["parameters"]["properties"] == {
        "a": {"type": "integer"},
        "b": {"items": {"$ref": "#/$defs/parameters/properties/a"}},
        "c": {"$ref": "#/$defs/parameters"},
    }
