from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from support.schema_corpus import SUPPORTED, UNSUPPORTED
from support.schema_strategies import anything, damaged

from fllm.errors import RequestError
from fllm.structured_output.json_schema import normalize_schema


@pytest.mark.parametrize(("schema", "keyword"), UNSUPPORTED, ids=lambda each: json.dumps(each)[:60])
def test_an_unsupported_schema_is_rejected_with_its_keyword(schema: Any, keyword: str) -> None:
    with pytest.raises(RequestError, match=keyword.replace("$", r"\$")):
        normalize_schema(json.dumps(schema))


@pytest.mark.parametrize("schema", SUPPORTED, ids=lambda schema: json.dumps(schema)[:60])
def test_normalizing_twice_changes_nothing(schema: Any) -> None:
    once = normalize_schema(json.dumps(schema))
    assert normalize_schema(once) == normalize_schema(normalize_schema(once))


HOSTILE = {
    "deep": '{"items":' * 10_000 + "{}" + "}" * 10_000,
    "deep enough to parse": '{"items":' * 500 + "{}" + "}" * 500,
    "many options": json.dumps({"allOf": [{"anyOf": [{"minimum": n}, {"maximum": -n}]} for n in range(40)]}),
    "references that double": json.dumps(
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                **{
                    f"d{n}": {
                        "allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}],
                        "type": "object",
                    }
                    for n in range(30)
                },
                "d30": {},
            },
        }
    ),
    "a circle": json.dumps(
        {
            "$defs": {
                "a": {"$ref": "#/$defs/b", "type": "string"},
                "b": {"$ref": "#/$defs/a", "type": "string"},
            },
            "$ref": "#/$defs/a",
        }
    ),
    "a hundred thousand values": json.dumps({"enum": [f"v{n}" for n in range(100_000)]}),
    "a long string": '{"minLength": 1000000000}',
    "many numbers": json.dumps({"oneOf": [{"const": n} for n in range(3000)]}),
    "not JSON": "{",
    "not a schema": '"string"',
    "keywords of wrong types": '{"properties": 3}',
    "no list": '{"anyOf": 3}',
    "no text": '{"pattern": 3}',
}


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_schema_is_rejected(schema: str) -> None:
    with pytest.raises(RequestError):
        normalize_schema(schema)


MALFORMED: list[tuple[str, Any, str]] = [
    ("type", 5, "5 is not the name of a type"),
    ("type", ["string", None], "not the name of a type"),
    ("type", "int", "no type 'int'"),
    ("enum", 3, "3 is not a list"),
    ("properties", [], "[] is not an object with a schema under each name"),
    ("properties", {"a": 5}, '{"a": 5} is not an object'),
    ("patternProperties", {"a": None}, "not an object"),
    ("additionalProperties", "no", '"no" is not a schema'),
    ("required", "a", '"a" is not a list of names'),
    ("required", [1], "[1] is not a list of names"),
    ("items", 3, "3 is not a schema"),
    ("items", [3], "[3] is not a schema or"),
    ("prefixItems", {}, "{} is not a list of schemas"),
    ("anyOf", {}, "{} is not a list of schemas"),
    ("oneOf", [3], "[3] is not a list of schemas"),
    ("allOf", "x", '"x" is not a list of schemas'),
    ("$ref", 7, "7 is not a string"),
    ("$ref", "#/title", "is not a schema"),
    ("$ref", "#/title/x", "nothing at"),
    ("pattern", 3, "3 is not a string"),
    ("format", None, "null is not a string"),
    ("minimum", "x", '"x" is not a number'),
    ("multipleOf", False, "false is not a number"),
    ("minLength", 1.5, "1.5 is not a whole number"),
    ("maxItems", "9" * 99, "99... is not a whole number"),
    ("uniqueItems", 1, "1 is not a boolean"),
]


@pytest.mark.parametrize(("keyword", "value", "why"), MALFORMED, ids=str)
def test_an_invalid_value_is_reported_with_its_keyword(keyword: str, value: Any, why: str) -> None:
    with pytest.raises(RequestError) as found:
        normalize_schema(json.dumps({"properties": {"a": {"title": "t", keyword: value}}, "title": "t"}))
    assert repr(keyword) in found.value.message
    assert why in found.value.message


@settings(deadline=None, max_examples=200)
@given(anything() | damaged())
def test_any_json_is_either_normalized_or_rejected(value: Any) -> None:
    with contextlib.suppress(RequestError):
        normalize_schema(json.dumps(value))


NOTED: dict[str, tuple[Any, str]] = {
    "a format": (
        {"properties": {"a": {"format": "poem"}}},
        "'format' in '#/properties/a': 'poem' is an annotation",
    ),
    "a set": ({"type": "array", "uniqueItems": True}, "'uniqueItems' in '#': ignored"),
    "a keyword": (
        {"items": [{"minimun": 1}]},
        "'minimun' in '#/items/0': not a keyword of JSON Schema, ignored",
    ),
    "an option": ({"anyOf": [{"pattern": "\\bx"}, {"type": "null"}]}, "'anyOf' in '#': without the option"),
    "a condition": (
        {"type": "string", "if": {"format": "email"}, "then": {"minLength": 3}},
        "'if' in '#': always holds",
    ),
    "properties": (
        {"properties": {"a": {}}, "additionalProperties": True, "maxProperties": 1},
        "'maxProperties' in '#': narrows to the named properties",
    ),
}


@pytest.mark.parametrize(("schema", "what"), NOTED.values(), ids=NOTED)
def test_a_keyword_that_is_ignored_is_noted_once(schema: Any, what: str) -> None:
    notes: list[str] = []
    normalize_schema(json.dumps(schema), notes.append)
    assert [note[: len(what)] for note in notes] == [what]


def test_a_lenient_schema_notes_what_it_ignores() -> None:
    notes: list[str] = []
    schema = {"type": "object", "properties": {"a": {"type": "date"}}}
    normalized = json.loads(normalize_schema(json.dumps(schema), notes.append, lenient=True))
    assert normalized["properties"] == {"a": {}}
    assert notes == ["'type' in '#/properties/a': ignored: there is no type 'date'"]


def closed_object(*names: str, **keywords: Any) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in names}
    return {
        "type": "object",
        "properties": properties,
        "required": list(names),
        "additionalProperties": False,
        **keywords,
    }


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([closed_object("a"), closed_object("b")], [{"a", "b"}]),
        ([closed_object("a", "b"), closed_object("b", "c"), closed_object("d")], [{"a", "b", "c", "d"}]),
        (
            [closed_object("a"), {"anyOf": [closed_object("b"), closed_object("c")]}],
            [{"a", "b"}, {"a", "c"}],
        ),
        ([closed_object("a"), {"$ref": "#/$defs/b"}], [{"a", "b"}]),
    ],
)
def test_closed_objects_that_exclude_each_other_are_joined(parts: list[Any], expected: list[Any]) -> None:
    notes: list[str] = []
    schema = {"allOf": parts, "$defs": {"b": closed_object("b")}}
    normalized = json.loads(normalize_schema(json.dumps(schema), notes.append))
    options = normalized.get("anyOf", [normalized])
    assert [set(option["properties"]) for option in options] == expected
    assert all(option["additionalProperties"] is False for option in options)
    assert [note[:14] for note in notes] == ["'allOf' in '#'"]


def test_closed_objects_that_agree_are_not_joined() -> None:
    parts = [closed_object("a", "b", required=["a"]), closed_object("a", "c", required=["a"])]
    normalized = json.loads(normalize_schema(json.dumps({"allOf": parts})))
    assert {name for name, each in normalized["properties"].items() if each is not False} == {"a"}
    conflict = json.dumps({"allOf": [closed_object("a"), closed_object("b", properties={"a": False})]})
    with pytest.raises(RequestError, match="allows no value"):
        normalize_schema(conflict)


def test_many_options_are_told_apart_by_a_tag() -> None:
    options = [{"type": "object", "properties": {"x": {}, "t": {"const": n}}} for n in range(60)]
    normalized = json.loads(normalize_schema(json.dumps({"oneOf": options})))
    assert all(option["required"] == ["t"] for option in normalized["anyOf"])
