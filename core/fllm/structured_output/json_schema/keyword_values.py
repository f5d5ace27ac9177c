"""Validate the values of keywords before they are interpreted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fllm.structured_output.json_schema.keywords import (
    ANNOTATIONS,
    COMBINATORS,
    CONSTRAINING_KEYWORDS,
    Schema,
    invalid,
    unsupported,
)

MAX_SHOWN_CHARACTERS = 60
"""Maximum number of characters of an invalid value that an error quotes."""


def constraining_keywords(schema: Schema) -> dict[str, Any]:
    """Return the schema without annotations.

    Raise `RequestError` for a keyword that is unknown or has an invalid value.
    """
    keywords = {}
    for keyword, value in schema.items():
        if keyword in CONSTRAINING_KEYWORDS or keyword in COMBINATORS:
            _check(keyword, value)
            keywords[keyword] = value
        elif keyword not in ANNOTATIONS and not keyword.startswith("x-"):
            raise unsupported(keyword, "the keyword is not supported")
    if keywords.get("uniqueItems") is False:
        del keywords["uniqueItems"]
    return keywords


def is_schema(value: Any) -> bool:
    """Return whether a value is an object or a boolean; its keywords are not checked."""
    return isinstance(value, dict | bool)


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


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_schema, value.values()))


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
_MAP: _Rule = ("an object with a schema under each name", _is_map)

_VALUE_RULES: dict[str, _Rule] = {
    "type": ("the name of a type, or a list of names", _is_type),
    "enum": ("a list", lambda value: isinstance(value, list)),
    "const": ("a value", _is_any),
    "required": ("a list of names", _list_of(_is_text)),
    "uniqueItems": ("a boolean", lambda value: isinstance(value, bool)),
    "items": (
        "a schema, which is an object or a boolean (a list is called 'prefixItems' since 2020)",
        is_schema,
    ),
    "additionalProperties": _SCHEMA,
    **dict.fromkeys(("$ref", "pattern", "format"), _TEXT),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SCHEMAS),
    **dict.fromkeys(("properties", "patternProperties"), _MAP),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _NUMBER),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNT
    ),
}
"""For each constraining keyword, a description of valid values and the test for them."""
