"""Validate the values of keywords, and rewrite those of older drafts, before they are interpreted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fllm.structured_output.json_schema.formats import ENCODINGS
from fllm.structured_output.json_schema.keywords import (
    ANNOTATIONS,
    UNSUPPORTED,
    Schema,
    invalid,
    unsupported,
)

MAX_SHOWN_CHARACTERS = 60
"""Maximum number of characters of an invalid value that an error quotes."""

Note = Callable[[str, str], None]
"""Records that a keyword is ignored or narrows the answer: the keyword, and what becomes of it."""


def constraining_keywords(schema: Schema, note: Note) -> dict[str, Any]:
    """Return the schema without annotations, in terms of draft 2020-12.

    Raise `SchemaError` for a keyword that is not supported or has an invalid value.
    """
    schema = _modernized(schema)
    keywords = {}
    for keyword, value in schema.items():
        if keyword in _VALUE_RULES:
            _check(keyword, value)
            keywords[keyword] = value
        elif keyword in UNSUPPORTED:
            raise unsupported(keyword, "the keyword is not supported; use $ref")
        elif keyword not in ANNOTATIONS and not keyword.startswith("x-"):
            note(keyword, "not a keyword of JSON Schema, ignored")
    if keywords.get("uniqueItems") is False:
        del keywords["uniqueItems"]
    return keywords


def is_schema(value: Any) -> bool:
    """Return whether a value is an object or a boolean; its keywords are not checked."""
    return isinstance(value, dict | bool)


def _modernized(schema: Schema) -> dict[str, Any]:
    """Convert what drafts 4 to 2019-09 and OpenAPI 3.0 write differently."""
    modern = dict(schema)
    if isinstance(items := modern.get("items"), list) and all(map(is_schema, items)):
        modern["prefixItems"] = modern.pop("items")
        if "additionalItems" in modern:
            modern["items"] = modern["additionalItems"]
    modern.pop("additionalItems", None)  # without a list of items, it has no effect
    for inclusive, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(is_exclusive := modern.get(exclusive), bool) and inclusive in modern:
            del modern[exclusive]
            if is_exclusive:
                modern[exclusive] = modern.pop(inclusive)
    if isinstance(dependencies := modern.pop("dependencies", None), dict):
        for keyword, kind in (("dependentRequired", list), ("dependentSchemas", dict | bool)):
            some = {name: each for name, each in dependencies.items() if isinstance(each, kind)}
            modern[keyword] = {**some, **modern.get(keyword, {})}
    if isinstance(modern.get("required"), bool):  # draft 3 has it on the property
        del modern["required"]
    if (encoding := modern.get("contentEncoding")) in ENCODINGS and not modern.keys() & {"enum", "const"}:
        modern.setdefault("pattern", f"^({ENCODINGS[encoding]})$")
    if modern.pop("nullable", None) is True and not modern.keys() <= ANNOTATIONS:
        kept = {name: modern.pop(name) for name in ANNOTATIONS & modern.keys()}
        return {**kept, "anyOf": [modern, {"type": "null"}]}
    return modern


def _check(keyword: str, value: Any) -> None:
    expected, is_valid = _VALUE_RULES[keyword]
    if not is_valid(value):
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= MAX_SHOWN_CHARACTERS else f"{shown[:MAX_SHOWN_CHARACTERS]}..."
        raise invalid(keyword, f"{shown} is not {expected}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _list_of(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_valid, value))


def _map_of(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_valid, value.values()))


def _is_type(value: Any) -> bool:
    return _is_text(value) or _list_of(_is_text)(value)


def _is_any(_: Any) -> bool:
    return True


_Rule = tuple[str, Callable[[Any], bool]]
_TEXT: _Rule = ("a string", _is_text)
_NUMBER: _Rule = ("a number", _is_number)
_COUNT: _Rule = ("a whole number of at least 0", _is_count)
_SCHEMA: _Rule = ("a schema, which is an object or a boolean", is_schema)
_SCHEMAS: _Rule = ("a list of schemas", _list_of(is_schema))
_MAP: _Rule = ("an object with a schema under each name", _map_of(is_schema))

_VALUE_RULES: dict[str, _Rule] = {
    "type": ("the name of a type, or a list of names", _is_type),
    "enum": ("a list", lambda value: isinstance(value, list)),
    "const": ("a value", _is_any),
    "required": ("a list of names", _list_of(_is_text)),
    "uniqueItems": ("a boolean", lambda value: isinstance(value, bool)),
    "multipleOf": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "dependentRequired": ("an object with a list of names under each name", _map_of(_list_of(_is_text))),
    **dict.fromkeys(("$ref", "pattern", "format"), _TEXT),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SCHEMAS),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), _MAP),
    **dict.fromkeys(("not", "if", "then", "else", "additionalProperties"), _SCHEMA),
    "items": ("a schema or, before draft 2020, a list of schemas", is_schema),
    **dict.fromkeys(("contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties"), _SCHEMA),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNT
    ),
    **dict.fromkeys(("minContains", "maxContains"), _COUNT),
}
"""For each constraining keyword, a description of valid values and the test for them."""
