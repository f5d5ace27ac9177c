"""Two schemas that must hold at once; both without ``$ref``, ``allOf``, ``anyOf``, ``oneOf``."""

from __future__ import annotations

from typing import Any

from fllm.structured_output.json_schema.keywords import TYPES, Schema, refuse

_GREATEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_LEAST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_OF_OBJECTS = ("properties", "additionalProperties", "patternProperties")
_OF_ARRAYS = ("items", "prefixItems")


def merged(a: Schema, b: Schema) -> dict[str, Any] | None:
    """Both in one, ``None`` if that allows nothing; raises `RequestError` for what one schema can't say."""
    both = {**a, **b}
    for keyword in a.keys() & b.keys():
        if keyword not in (*_OF_OBJECTS, *_OF_ARRAYS):
            both[keyword] = _merge(keyword, a[keyword], b[keyword])
    if both.get("type") == [] or both.get("enum") == []:
        return None
    if any(keyword in a for keyword in _OF_OBJECTS) and any(keyword in b for keyword in _OF_OBJECTS):
        _merge_properties(a, b, both)
    if any(keyword in a for keyword in _OF_ARRAYS) and any(keyword in b for keyword in _OF_ARRAYS):
        _merge_items(a, b, both)
    return both


def types(schema: Schema) -> list[str]:
    """The types that a schema names; all without."""
    named = schema.get("type", list(TYPES))
    found = [named] if isinstance(named, str) else list(named)
    for name in found:
        if name not in TYPES:
            raise refuse("type", f"there is no type {name!r}")
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two values are one in JSON, where true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def _merge(keyword: str, a: Any, b: Any) -> Any:
    if same(a, b):
        return a
    if keyword in _GREATEST:
        return max(a, b)
    if keyword in _LEAST:
        return min(a, b)
    if keyword == "type":
        return common_types(types({"type": a}), types({"type": b}))
    if keyword == "enum":
        return [value for value in a if any(same(value, other) for other in b)]
    if keyword == "required":
        return [*a, *(name for name in b if name not in a)]
    raise refuse(keyword, "it stands in several schemas that must hold together")


def common_types(a: list[str], b: list[str]) -> list[str]:
    """Types of values that are of both; every integer is a number."""
    found = [name for name in a if name in b or (name == "integer" and "number" in b)]
    return found + [name for name in b if name == "integer" and "number" in a and name not in found]


def _merge_properties(a: Schema, b: Schema, both: dict[str, Any]) -> None:
    if "patternProperties" in both:
        raise refuse("patternProperties", "it stands beside another schema that must hold, too")
    names = [*a.get("properties", {}), *b.get("properties", {})]
    both["properties"] = {name: {"allOf": [_property(a, name), _property(b, name)]} for name in names}
    others = [schema["additionalProperties"] for schema in (a, b) if "additionalProperties" in schema]
    if others:
        both["additionalProperties"] = others[0] if len(others) == 1 else {"allOf": others}


def _property(schema: Schema, name: str) -> Any:
    return schema.get("properties", {}).get(name, schema.get("additionalProperties", True))


def _merge_items(a: Schema, b: Schema, both: dict[str, Any]) -> None:
    if "prefixItems" in both:
        raise refuse("prefixItems", "it stands beside another schema that must hold, too")
    both["items"] = {"allOf": [a["items"], b["items"]]}
