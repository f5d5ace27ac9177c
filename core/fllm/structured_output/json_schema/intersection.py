"""Intersect two schemas into one.

Neither schema has ``$ref``, ``allOf``, ``anyOf`` or ``oneOf``.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm
from typing import Any

from fllm.structured_output.json_schema.keywords import TYPES, Schema, invalid, unsupported

_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_OF_OBJECTS = ("properties", "additionalProperties", "patternProperties")
_OF_ARRAYS = ("items", "prefixItems")


def intersect(a: Schema, b: Schema) -> dict[str, Any] | None:
    """Return a schema for the values that satisfy both, or ``None`` if there are none.

    Raise `RequestError` if one schema can't express the intersection.
    """
    both = {**a, **b}
    for keyword in a.keys() & b.keys():
        if keyword not in (*_OF_OBJECTS, *_OF_ARRAYS):
            both[keyword] = _intersect_keyword(keyword, a[keyword], b[keyword])
    if both.get("type") == [] or both.get("enum") == []:
        return None
    if any(keyword in a for keyword in _OF_OBJECTS) and any(keyword in b for keyword in _OF_OBJECTS):
        _intersect_properties(a, b, both)
    if any(keyword in a for keyword in _OF_ARRAYS) and any(keyword in b for keyword in _OF_ARRAYS):
        _intersect_items(a, b, both)
    properties = both.get("properties", {})
    if any(_listed_values(properties.get(name, True)) == [] for name in both.get("required", ())):
        return None
    return both


def allowed_types(schema: Schema) -> list[str]:
    """Return the types that ``type`` names, by default all; raise `RequestError` for an unknown one."""
    named = schema.get("type", list(TYPES))
    types = [named] if isinstance(named, str) else list(named)
    for name in types:
        if name not in TYPES:
            raise invalid("type", f"there is no type {name!r}")
    return types


def json_type(value: Any) -> str:
    """Return the narrowest type of a JSON value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case float():
            return "integer" if value.is_integer() else "number"
        case int():
            return "integer"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def json_equal(a: Any, b: Any) -> bool:
    """Return whether two values are equal in JSON, where ``true`` does not equal ``1``."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(json_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(json_equal(a[key], b[key]) for key in a)
    return bool(a == b)


def _listed_values(schema: Any) -> list[Any] | None:
    """Return the values that a schema lists, or ``None``; only ``allOf`` and ``not`` are looked into.

    The schema is not validated yet.
    """
    if not isinstance(schema, dict):
        return [] if schema is False else None
    parts = schema["allOf"] if isinstance(schema.get("allOf"), list) else []
    own = [schema["const"]] if "const" in schema else schema.get("enum")
    lists: list[list[Any]] = [each for each in (own, *map(_listed_values, parts)) if isinstance(each, list)]
    if not lists:
        return None
    first, *others = lists
    excluded = _listed_values(schema.get("not")) or []
    return [
        value for value in first if all(_has(each, value) for each in others) and not _has(excluded, value)
    ]


def _has(values: list[Any], value: Any) -> bool:
    return any(json_equal(value, other) for other in values)


def _intersect_keyword(keyword: str, a: Any, b: Any) -> Any:
    if json_equal(a, b):
        return a
    if keyword in _LOWER_BOUNDS:
        return max(a, b)
    if keyword in _UPPER_BOUNDS:
        return min(a, b)
    if keyword == "propertyNames":
        return {"allOf": [a, b]}
    if keyword == "type":
        return common_types(allowed_types({"type": a}), allowed_types({"type": b}))
    if keyword == "enum":
        return [value for value in a if _has(b, value)]
    if keyword in ("required", "pattern", "not"):
        return [*a, *(each for each in b if not _has(a, each))]
    if keyword == "multipleOf":
        return _common_multiple(Fraction(repr(a)), Fraction(repr(b)))
    raise unsupported(keyword, "it can't be combined across several schemas that must all hold")


def _common_multiple(a: Fraction, b: Fraction) -> int | float:
    common = Fraction(lcm(a.numerator, b.numerator), gcd(a.denominator, b.denominator))
    return int(common) if common.denominator == 1 else float(common)


def common_types(a: list[str], b: list[str]) -> list[str]:
    """Return the types that are in both lists; every integer is a number."""
    common = [name for name in a if name in b or (name == "integer" and "number" in b)]
    return common + [name for name in b if name == "integer" and "number" in a and name not in common]


def _intersect_properties(a: Schema, b: Schema, both: dict[str, Any]) -> None:
    for one, other in ((a, b), (b, a)):
        if "patternProperties" in one and one.get("additionalProperties", True) is not True:
            for keyword in ("properties", "patternProperties"):
                if other.get(keyword, {}).keys() - one.get(keyword, {}).keys():
                    raise unsupported("patternProperties", "it can't be combined with other properties")
    names = [*a.get("properties", {}), *b.get("properties", {})]
    both["properties"] = {name: {"allOf": [_property(a, name), _property(b, name)]} for name in names}
    patterns = {**a.get("patternProperties", {}), **b.get("patternProperties", {})}
    if patterns:
        both["patternProperties"] = {
            pattern: {"allOf": [_named(a, pattern), _named(b, pattern)]} for pattern in patterns
        }
    others = [schema["additionalProperties"] for schema in (a, b) if "additionalProperties" in schema]
    if others:
        both["additionalProperties"] = others[0] if len(others) == 1 else {"allOf": others}


def _property(schema: Schema, name: str) -> Any:
    fallback = True if "patternProperties" in schema else schema.get("additionalProperties", True)
    return schema.get("properties", {}).get(name, fallback)


def _named(schema: Schema, pattern: str) -> Any:
    return schema.get("patternProperties", {}).get(pattern, schema.get("additionalProperties", True))


def _intersect_items(a: Schema, b: Schema, both: dict[str, Any]) -> None:
    count = max(len(schema.get("prefixItems", ())) for schema in (a, b))
    if count:
        both["prefixItems"] = [{"allOf": [_item(a, index), _item(b, index)]} for index in range(count)]
    if "items" in both:
        both["items"] = {"allOf": [schema.get("items", True) for schema in (a, b)]}


def _item(schema: Schema, index: int) -> Any:
    prefix = schema.get("prefixItems", ())
    return prefix[index] if index < len(prefix) else schema.get("items", True)
