"""Normalize schemas of arrays."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from fllm.structured_output.json_schema.intersection import json_equal
from fllm.structured_output.json_schema.keywords import Schema, unsupported
from fllm.structured_output.json_schema.typed_schemas import Subschemas, bounds, normalize_enum

MAX_UNIQUE_VALUES = 4
"""Maximum number of values of which an array without repetitions is enumerated: 65 arrays."""


def normalize_array(own: Schema, subschemas: Subschemas) -> dict[str, Any] | None:
    """Normalize the keywords of an array; return ``None`` if no array satisfies them."""
    if "contains" in own:
        own = _contains(own)
    lower, upper = bounds(own, "Items")
    if own.get("uniqueItems") and upper not in (0, 1):
        values = [] if "prefixItems" in own else _listed(own.get("items", True), subschemas)
        if 0 < len(values) <= MAX_UNIQUE_VALUES:
            return _arrangements(values, lower, len(values) if upper is None else min(upper, len(values)))
        if values:
            upper = len(values) if upper is None else min(upper, len(values))
        subschemas.note("uniqueItems", "ignored, since a grammar can't compare items")
    prefix = [subschemas.normalize(each) for each in own.get("prefixItems", ())]
    if None in prefix:
        upper = prefix.index(None) if upper is None else min(upper, prefix.index(None))
    items = subschemas.normalize(own.get("items", True))
    if items is None:
        upper = len(prefix) if upper is None else min(upper, len(prefix))
    if upper is not None and lower > upper:
        return None
    result: dict[str, Any] = {"type": "array", "items": False if items is None else items}
    if kept := [each for each in prefix[:upper] if each is not None]:
        result["prefixItems"] = kept
    if lower:
        result["minItems"] = lower
    if upper is not None and (items is not None or upper < len(kept)):
        result["maxItems"] = upper
    return result


def _contains(own: Schema) -> dict[str, Any]:
    """Limit an array so that its first items satisfy ``contains``; with ``maxContains``, all of them."""
    narrowed = {keyword: value for keyword, value in own.items() if not keyword.lower().endswith("contains")}
    least, most = int(own.get("minContains", 1)), own.get("maxContains")
    prefix, items = list(own.get("prefixItems", ())), own.get("items", True)
    if most is not None:
        if prefix:
            raise unsupported("maxContains", "not supported together with 'prefixItems'")
        narrowed["items"] = {"allOf": [items, own["contains"]]}
        narrowed["maxItems"] = min(most, own.get("maxItems", most))
    elif least and items is False:
        narrowed["prefixItems"] = [{"allOf": [each, own["contains"]]} for each in prefix[:least]] + prefix[
            least:
        ]
    elif least:
        narrowed["prefixItems"] = prefix + [{"allOf": [items, own["contains"]]}] * least
        least += len(prefix)
    narrowed["minItems"] = max(own.get("minItems", 0), least)
    return narrowed


def _listed(items: Any, subschemas: Subschemas) -> list[Any]:
    """Return the values that an item may have, or none if they are not listed."""
    values: list[Any] = []
    for each in subschemas.alternatives(items):
        listed = {"enum": [False, True]} if each == {"type": "boolean"} else {}
        if "enum" in each:
            listed = normalize_enum(each) or {"enum": []}
        if listed.keys() != {"enum"}:
            return []
        values += [value for value in listed["enum"] if not any(json_equal(value, other) for other in values)]
    return values


def _arrangements(values: list[Any], lower: int, upper: int) -> dict[str, Any] | None:
    arrays = [list(some) for count in range(lower, upper + 1) for some in permutations(values, count)]
    return {"enum": arrays} if arrays else None
