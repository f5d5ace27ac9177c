"""What the value of a keyword must look like, before anybody reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fllm.structured_output.json_schema.keywords import ANNOTATIONS, COMBINING, PLAIN, Schema, refuse

SHOWN = 60
"""Characters of a wrong value that an error shows."""


def constraining(schema: Schema) -> dict[str, Any]:
    """The schema without annotations.

    Raises `RequestError` for a keyword that is not understood, or whose value it can't have.
    """
    found = {}
    for keyword, value in schema.items():
        if keyword in PLAIN or keyword in COMBINING:
            _check(keyword, value)
            found[keyword] = value
        elif keyword not in ANNOTATIONS and not keyword.startswith("x-"):
            raise refuse(keyword, "this keyword is not supported")
    if found.get("uniqueItems") is False:
        del found["uniqueItems"]
    return found


def is_schema(value: Any) -> bool:
    """An object or a boolean: the keywords in it are another question."""
    return isinstance(value, dict | bool)


def _check(keyword: str, value: Any) -> None:
    what, fits = _SHAPES[keyword]
    if not fits(value):
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
        raise refuse(keyword, f"{shown} is not {what}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_schema, value.values()))


def _is_type(value: Any) -> bool:
    return _is_text(value) or _list_of(_is_text)(value)


def _is_any(_: Any) -> bool:
    return True


_Shape = tuple[str, Callable[[Any], bool]]
_TEXT: _Shape = ("a string", _is_text)
_NUMBER: _Shape = ("a number", _is_number)
_COUNT: _Shape = ("a whole number from 0", _is_count)
_SCHEMA: _Shape = ("a schema, which is an object or a boolean", is_schema)
_SCHEMAS: _Shape = ("a list of schemas", _list_of(is_schema))
_MAP: _Shape = ("an object with a schema under each name", _is_map)

_SHAPES: dict[str, _Shape] = {
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
"""For every keyword that constrains."""
