"""Negate schemas, and express conditions with the combinators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fllm.structured_output.json_schema.intersection import allowed_types
from fllm.structured_output.json_schema.keyword_values import Note, constraining_keywords
from fllm.structured_output.json_schema.keywords import TYPES, Schema, unsupported

MAX_DEPTH = 10
"""Maximum depth of schemas that are negated."""

Resolve = Callable[[str], Any]
"""Returns the schema at a JSON pointer."""


def without_conditions(own: Schema, negate: Callable[[Any], Any], note: Note) -> dict[str, Any]:
    """Replace ``not``, ``if`` and the dependencies by ``allOf`` and ``anyOf``.

    ``not`` of listed values stays, as the list of these values, and so does ``not`` of a pattern of strings.
    """
    rest = dict(own)
    parts: list[Any] = []
    excluded = rest.pop("not", None)
    if isinstance(excluded, dict) and ("enum" in excluded or "const" in excluded):
        rest["not"] = list(excluded.get("enum", ())) if "enum" in excluded else [excluded["const"]]
    elif isinstance(excluded, dict) and excluded.keys() == {"pattern"}:
        if own.get("type") == "string":
            rest["not"] = excluded
        else:
            parts.append({"type": "string", "not": excluded})
    elif excluded is not None:
        parts.append(negate(excluded))
        if parts[-1] is None:
            raise unsupported("not", "the schema can't be negated")
    condition, then, otherwise = (rest.pop(keyword, True) for keyword in ("if", "then", "else"))
    if "if" in own and (then is not True or otherwise is not True):
        opposite = negate(condition)
        if opposite is None:
            note("if", "always holds, since its opposite can't be expressed")
        parts.append({"anyOf": [{"allOf": [condition, then]}, {"allOf": [opposite or False, otherwise]}]})
    for name, names in rest.pop("dependentRequired", {}).items():
        parts.append({"anyOf": [_absent(name), {"required": [name, *names]}]})
    for name, schema in rest.pop("dependentSchemas", {}).items():
        parts.append({"anyOf": [_absent(name), schema]})
    return {**rest, "allOf": [*rest.get("allOf", ()), *parts]} if parts else rest


def negated(schema: Any, resolve: Resolve, depth: int = MAX_DEPTH) -> Any:
    """Return a schema for values that do not satisfy ``schema``, not always all of them.

    Return ``None`` if it can't be expressed.
    """
    if isinstance(schema, bool):
        return not schema
    own = constraining_keywords(schema, lambda *_: None)
    if not own:
        return False
    if depth == 0:
        return None
    options = [
        each
        for keyword, value in own.items()
        for each in _violations(keyword, value, lambda inner: negated(inner, resolve, depth - 1), resolve)
    ]
    return {"anyOf": options} if options else None


def _violations(keyword: str, value: Any, negate: Callable[[Any], Any], resolve: Resolve) -> Iterable[Any]:
    """Yield schemas for values that violate one keyword."""
    match keyword:
        case "type":
            types = allowed_types({"type": value})
            numbers = ("integer", "number") if {"integer", "number"} & set(types) else ()
            yield {"type": [each for each in TYPES if each not in (*types, *numbers) and each != "integer"]}
        case "enum" | "const":
            yield {"not": {keyword: value}}
        case "required":
            yield from map(_absent, value)
        case "properties":
            for name, schema in value.items():
                if (opposite := negate(schema)) not in (None, False):
                    yield {"type": "object", "required": [name], "properties": {name: opposite}}
        case "pattern":
            yield {"type": "string", "not": {"pattern": value}}
        case "not":
            yield value
        case "$ref":
            yield from _known(negate(resolve(value)))
        case "allOf":
            for schema in value:
                yield from _known(negate(schema))
        case "anyOf":
            opposites = [negate(schema) for schema in value]
            if None not in opposites:
                yield {"allOf": opposites}
        case "minimum" | "maximum":
            opposite = "exclusiveMaximum" if keyword == "minimum" else "exclusiveMinimum"
            yield {"type": "number", opposite: value}
        case "exclusiveMinimum" | "exclusiveMaximum":
            yield {"type": "number", "maximum" if keyword == "exclusiveMinimum" else "minimum": value}
        case "minLength" | "minItems" | "minProperties" if value > 0:
            yield {"type": _COUNTED[keyword[3:]], f"max{keyword[3:]}": value - 1}
        case "maxLength" | "maxItems" | "maxProperties":
            yield {"type": _COUNTED[keyword[3:]], f"min{keyword[3:]}": value + 1}


_COUNTED = {"Length": "string", "Items": "array", "Properties": "object"}


def _absent(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: False}}


def _known(schema: Any) -> Iterable[Any]:
    return () if schema is None else (schema,)
