"""Whether no value can be of two schemas; both without ``$ref``, ``allOf``, ``anyOf``, ``oneOf``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from fllm.structured_output.json_schema.intersection import common_types, same, types
from fllm.structured_output.json_schema.keywords import Schema
from fllm.structured_output.json_schema.typed_schemas import type_of

MAX_DEPTH = 4
"""Of properties within properties that are looked at."""

Alternatives = Callable[[Any], list[dict[str, Any]]]


def distinct(a: Schema, b: Schema, alternatives: Alternatives, depth: int = 0) -> bool:
    """By their types, their constants, or a property that both require; False also where it is not seen."""
    if not common_types(_types(a), _types(b)):
        return True
    if "enum" in a and "enum" in b:
        return not any(same(one, other) for one, other in product(a["enum"], b["enum"]))
    if depth == MAX_DEPTH:
        return False
    shared = [name for name in a.get("required", ()) if name in b.get("required", ())]
    return _types(a) == _types(b) == ["object"] and any(
        _distinct_properties(a, b, name, alternatives, depth) for name in shared
    )


def _distinct_properties(a: Schema, b: Schema, name: str, alternatives: Alternatives, depth: int) -> bool:
    ours, theirs = (schema.get("properties", {}).get(name, True) for schema in (a, b))
    return all(
        distinct(one, other, alternatives, depth + 1)
        for one, other in product(alternatives(ours), alternatives(theirs))
    )


def _types(schema: Schema) -> list[str]:
    if "enum" in schema:
        return list(dict.fromkeys(map(type_of, schema["enum"])))
    return types(schema)
