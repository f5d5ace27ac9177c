"""Normalize schemas of objects."""

from __future__ import annotations

from itertools import combinations, islice
from math import comb
from typing import Any

from fllm.structured_output.json_schema.intersection import allowed_types
from fllm.structured_output.json_schema.keywords import Schema, unsupported
from fllm.structured_output.json_schema.patterns import plain_patterns
from fllm.structured_output.json_schema.typed_schemas import (
    Subschemas,
    any_of,
    bounds,
    normalize_enum,
    normalize_string,
    own_keywords,
)

MAX_COMBINATIONS = 50
"""Maximum number of ways to choose the properties that ``minProperties`` and ``maxProperties`` leave."""


def normalize_object(own: Schema, subschemas: Subschemas) -> dict[str, Any] | None:
    """Normalize the keywords of an object; return ``None`` if no object satisfies them."""
    lower, upper = bounds(own, "Properties")
    required = list(dict.fromkeys(own.get("required", ())))
    own = _with_limited_names(_with_explicit_others(own), subschemas)
    schemas, others = dict(own["properties"]), own["additionalProperties"]
    for name in required:
        if name not in schemas and others is False and own["patternProperties"]:
            raise unsupported("required", f"{name!r} must be one of 'properties'")
        schemas.setdefault(name, own["default"])
    properties = {name: subschemas.normalize(each) for name, each in schemas.items()}
    if any(properties[name] is None for name in required):
        return None
    additional = subschemas.normalize(others)
    patterns = _patterns(own["patternProperties"], subschemas)
    if additional is None and all(each is False for each in patterns.values()):
        patterns = {}
    if not (additional is not None or patterns):
        properties = {name: each for name, each in properties.items() if each is not None}
    result: dict[str, Any] = {
        "type": "object",
        "properties": {name: False if each is None else each for name, each in properties.items()},
        "required": required,
        "additionalProperties": False if additional is None else additional,
    }
    if patterns:
        result["patternProperties"] = patterns
    return _counted(result, lower, upper, subschemas)


def closed(own: Schema) -> dict[str, Any]:
    """Return the schema with ``additionalProperties``: not allowed if it mentions properties."""
    mentions = any(own.get(keyword) for keyword in ("properties", "patternProperties", "required"))
    return {"additionalProperties": not mentions, **own}


def _with_explicit_others(own: Schema) -> dict[str, Any]:
    explicit = own.get("additionalProperties")
    return {
        "properties": {},
        "patternProperties": {},
        "default": True if explicit is None else explicit,
        **closed(own),
    }


def _with_limited_names(own: dict[str, Any], subschemas: Subschemas) -> dict[str, Any]:
    """Replace ``propertyNames`` by the other keywords."""
    if "propertyNames" not in own:
        return own
    names = [each for each in subschemas.alternatives(own["propertyNames"]) if _may_be_text(each)]
    constraints = [own_keywords(each, "string") for each in names if "enum" not in each]
    if {} in constraints:
        return own
    if own["patternProperties"]:
        raise unsupported("propertyNames", "not supported together with 'patternProperties'")
    listed = [name for each in names if "enum" in each for name in _listed_names(each)]
    if not constraints:
        fallback = own["default"]
        properties = {name: own["properties"].get(name, fallback) for name in dict.fromkeys(listed)}
        return {**own, "properties": properties, "additionalProperties": False, "default": False}
    if own["properties"] or listed:
        raise unsupported("propertyNames", "not supported together with 'properties'")
    if all(each.keys() == {"not"} for each in constraints):
        excluded = {str(name): False for each in constraints for name in each["not"]}
        return {**own, "properties": excluded, "additionalProperties": own["default"]}
    patterns = [_name_pattern(each) for each in constraints]
    values = {pattern: own["default"] for pattern in patterns if pattern is not None}
    return {**own, "patternProperties": values, "additionalProperties": False}


def _may_be_text(schema: Schema) -> bool:
    return "string" in allowed_types(schema)


def _listed_names(schema: Schema) -> list[str]:
    normalized = normalize_enum({**schema, "type": "string"}) or {"enum": []}
    if "pattern" in normalized:
        raise unsupported("propertyNames", "'enum' is not supported together with 'pattern'")
    return list(normalized["enum"])


def _name_pattern(own: Schema) -> str | None:
    """Return the pattern of the strings that a schema allows, or ``None`` if it allows none."""
    text = normalize_string(own)
    if text is None:
        return None
    if "allOf" in text or ("pattern" in text and "minLength" in text):
        raise unsupported("propertyNames", "only one 'pattern', or a length, is supported")
    if "pattern" in text:
        return str(text["pattern"])
    return rf"^[\s\S]{{{text['minLength']},{min(text.get('maxLength', 1000), 1000)}}}$"


def _patterns(own: Schema, subschemas: Subschemas) -> dict[str, Any]:
    """Return the normalized schemas by patterns; those with the same schema share a pattern."""
    patterns: dict[str, Any] = {}
    for pattern, schema in own.items():
        plain = plain_patterns(pattern)
        if len(plain) != 1:
            raise unsupported("patternProperties", "look-around is not supported in the pattern of a name")
        normalized = subschemas.normalize(schema)
        same = next((each for each, other in patterns.items() if other == normalized), None)
        joined = plain[0]["pattern"] if same is None else f"(?:{same})|(?:{plain[0]['pattern']})"
        if same is not None:
            del patterns[same]
        patterns[joined] = normalized
    return {pattern: False if each is None else each for pattern, each in patterns.items()}


def _counted(
    result: dict[str, Any], lower: int, upper: int | None, subschemas: Subschemas
) -> dict[str, Any] | None:
    """Apply ``minProperties`` and ``maxProperties``; return ``None`` if no object satisfies them."""
    required, properties = result["required"], result["properties"]
    is_open = result["additionalProperties"] is not False or "patternProperties" in result
    if lower > max(len(required), 1) and is_open:
        raise unsupported(
            "minProperties", "additional properties can't be counted, since a name may occur twice"
        )
    if upper is not None and upper < max(lower, len(required)):
        return None
    optional = [name for name, each in properties.items() if name not in required and each is not False]
    needed = max(lower - len(required), 0)
    spare = None if upper is None else upper - len(required)
    if is_open and not optional:
        return result | ({"minProperties": lower} if needed else {}) | _limit("maxProperties", upper)
    if is_open and (needed or spare is not None):
        subschemas.note("minProperties" if needed else "maxProperties", "narrows to the named properties")
        kept = {name: each for name, each in properties.items() if each is not False}
        result = {key: each for key, each in result.items() if key != "patternProperties"}
        result |= {"properties": kept, "additionalProperties": False}
    if needed > len(optional):
        return None
    if spare is not None and spare < len(optional):
        return _choose(result, optional, spare, needed)
    return _require(result, optional, needed)


def _choose(result: dict[str, Any], optional: list[str], count: int, needed: int) -> dict[str, Any] | None:
    """Allow at most ``count`` of the optional properties; at least ``needed``, the first of them."""
    options = []
    for kept in _combinations(optional, count):
        dropped = set(optional) - set(kept)
        properties = {name: each for name, each in result["properties"].items() if name not in dropped}
        options.append({**result, "properties": properties, "required": result["required"] + kept[:needed]})
    return any_of(options)


def _require(result: dict[str, Any], optional: list[str], needed: int) -> dict[str, Any] | None:
    some = _combinations(optional, needed)
    return any_of({**result, "required": result["required"] + names} for names in some)


def _combinations(names: list[str], count: int) -> list[list[str]]:
    """Return the ways to choose ``count`` names: all, or only the first if there are too many."""
    limit = MAX_COMBINATIONS if comb(len(names), count) <= MAX_COMBINATIONS else 1
    return list(map(list, islice(combinations(names, count), limit)))


def _limit(keyword: str, value: int | None) -> dict[str, int]:
    return {} if value is None else {keyword: value}
