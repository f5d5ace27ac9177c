"""Decide whether two schemas are disjoint: no value satisfies both.

Neither schema has ``$ref``, ``allOf``, ``anyOf`` or ``oneOf``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from fllm.structured_output.json_schema.intersection import allowed_types, common_types, json_equal
from fllm.structured_output.json_schema.keywords import Schema
from fllm.structured_output.json_schema.typed_schemas import json_type

MAX_DEPTH = 4
"""Maximum depth of nested properties that are compared."""

Alternatives = Callable[[Any], list[dict[str, Any]]]
"""Expands a schema into alternatives without ``$ref``, ``allOf``, ``anyOf`` and ``oneOf``."""


def are_disjoint(a: Schema, b: Schema, alternatives: Alternatives, depth: int = 0) -> bool:
    """Return whether two schemas are disjoint by their types, constants or a property that both require.

    ``False`` may also mean that it could not be decided.
    """
    if not common_types(_value_types(a), _value_types(b)):
        return True
    if "enum" in a and "enum" in b:
        return not any(json_equal(one, other) for one, other in product(a["enum"], b["enum"]))
    if depth == MAX_DEPTH:
        return False
    shared = [name for name in a.get("required", ()) if name in b.get("required", ())]
    return _value_types(a) == _value_types(b) == ["object"] and any(
        _have_disjoint_property(a, b, name, alternatives, depth) for name in shared
    )


def _have_disjoint_property(a: Schema, b: Schema, name: str, alternatives: Alternatives, depth: int) -> bool:
    first, second = (schema.get("properties", {}).get(name, True) for schema in (a, b))
    return all(
        are_disjoint(one, other, alternatives, depth + 1)
        for one, other in product(alternatives(first), alternatives(second))
    )


def _value_types(schema: Schema) -> list[str]:
    if "enum" in schema:
        return list(dict.fromkeys(map(json_type, schema["enum"])))
    return allowed_types(schema)
