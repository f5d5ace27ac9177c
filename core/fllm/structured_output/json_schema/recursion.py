"""Reject schemas that only an infinite value could satisfy."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fllm.structured_output.json_schema.keywords import Schema, invalid


def check_not_infinitely_recursive(schema: Schema) -> None:
    """Raise `RequestError` if a normalized schema requires itself within itself, infinitely often."""
    definitions: dict[str, Any] = schema.get("$defs", {})
    finite: set[str] = set()
    grown = True
    while grown:
        current = {f"#/$defs/{name}" for name, each in definitions.items() if _is_finite(each, finite)}
        grown = current > finite
        finite = current
    if len(finite) < len(definitions) or not _is_finite(schema, finite):
        raise invalid("$ref", "infinitely recursive, no finite value satisfies it")


def _is_finite(schema: Schema, finite: Collection[str]) -> bool:
    if "$ref" in schema:
        return schema["$ref"] in finite
    if "anyOf" in schema:
        return any(_is_finite(option, finite) for option in schema["anyOf"])
    needed = [schema["properties"][name] for name in schema.get("required", ())]
    min_items = schema.get("minItems", 0)
    prefix = schema.get("prefixItems", [])
    needed += prefix[:min_items]
    if min_items > len(prefix) and isinstance(schema.get("items"), dict):
        needed.append(schema["items"])
    return all(_is_finite(each, finite) for each in needed)
