"""A schema that refers to itself must be able to end."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fllm.structured_output.json_schema.keywords import Schema, refuse


def check_finite(schema: Schema) -> None:
    """Raise `RequestError` if a simplified schema needs a value within a value without end."""
    definitions: dict[str, Any] = schema.get("$defs", {})
    ending: set[str] = set()
    grown = True
    while grown:
        found = {f"#/$defs/{name}" for name, each in definitions.items() if _ends(each, ending)}
        grown = found > ending
        ending = found
    if len(ending) < len(definitions) or not _ends(schema, ending):
        raise refuse("$ref", "no value that ends obeys it, since it requires itself again and again")


def _ends(schema: Schema, ending: Collection[str]) -> bool:
    if "$ref" in schema:
        return schema["$ref"] in ending
    if "anyOf" in schema:
        return any(_ends(option, ending) for option in schema["anyOf"])
    needed = [schema["properties"][name] for name in schema.get("required", ())]
    least = schema.get("minItems", 0)
    prefix = schema.get("prefixItems", [])
    needed += prefix[:least]
    if least > len(prefix) and isinstance(schema.get("items"), dict):
        needed.append(schema["items"])
    return all(_ends(each, ending) for each in needed)
