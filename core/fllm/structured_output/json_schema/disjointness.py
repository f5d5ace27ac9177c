"""Decide whether two schemas are disjoint: no value satisfies both.

Neither schema has ``$ref``, ``allOf``, ``anyOf`` or ``oneOf``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

from fllm.structured_output.json_schema.intersection import allowed_types, common_types, json_equal, json_type
from fllm.structured_output.json_schema.keywords import Schema

MAX_DEPTH = 4
"""Maximum depth of nested properties that are compared."""

Alternatives = Callable[[Any], list[dict[str, Any]]]
"""Expands a schema into alternatives without ``$ref``, ``allOf``, ``anyOf`` and ``oneOf``."""


def are_disjoint(a: Schema, b: Schema, alternatives: Alternatives, depth: int = 0) -> bool:
    """Return whether two schemas are disjoint by their types, constants or a property that both require.

    ``False`` may also mean that it could not be decided.
    """
    common = common_types(_value_types(a), _value_types(b))
    if not common:
        return True
    if "enum" in a and "enum" in b:
        return not any(json_equal(one, other) for one, other in product(a["enum"], b["enum"]))
    if depth == MAX_DEPTH or common != ["object"]:
        return False
    if any(_excludes(one, name) for one, other in ((a, b), (b, a)) for name in other.get("required", ())):
        return True
    shared = [name for name in a.get("required", ()) if name in b.get("required", ())]
    return any(_have_disjoint_property(a, b, name, alternatives, depth) for name in shared)


def find_tag(options: Sequence[Sequence[Schema]], alternatives: Alternatives) -> str | None:
    """Return a property that tells all options apart once it is required, or ``None``."""
    names: list[str] = list(options[0][0].get("properties", {})) if options[0] else []
    for name in names:
        required = [[{**each, "required": [name]} for each in some] for some in options]
        if all(
            are_disjoint(one, other, alternatives)
            for some, others in combinations(required, 2)
            for one, other in product(some, others)
        ):
            return name
    return None


def _excludes(schema: Schema, name: str) -> bool:
    """Return whether no object that satisfies the schema has the property."""
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return schema.get("properties", {}).get(name, not closed) is False


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
