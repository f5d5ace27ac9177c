"""Normalize schemas of one type or of listed values, with explicit defaults."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fllm.structured_output.json_schema.formats import FORMATS
from fllm.structured_output.json_schema.intersection import allowed_types
from fllm.structured_output.json_schema.keywords import KEYWORDS_BY_TYPE, Schema, unsupported
from fllm.structured_output.json_schema.patterns import check_pattern

MAX_COUNT = 500
"""Maximum lower bound of characters, items or properties. Higher upper bounds of items are lowered to it."""
MAX_LENGTH = 2**31 - 1
"""Maximum upper bound of a string's length; higher ones are lowered to it."""
MAX_NUMBER = 10**15
"""Maximum magnitude of a number's bounds: floats can't distinguish larger ones."""
MAX_VALUES = 2000
"""Maximum number of values of an ``enum``."""
Normalize = Callable[[Any], dict[str, Any] | None]
"""Normalizes a subschema; ``None`` if no value satisfies it."""


def normalize_typed(schema: Schema, normalize: Normalize) -> dict[str, Any] | None:
    """Normalize a schema that has one type or an ``enum``; return ``None`` if no value satisfies it."""
    if "enum" in schema:
        return _enum(schema)
    [kind] = allowed_types(schema)
    keywords = KEYWORDS_BY_TYPE.get("number" if kind == "integer" else kind, ())
    own = {keyword: schema[keyword] for keyword in keywords if keyword in schema}
    match kind:
        case "string":
            return _string(own)
        case "integer" | "number":
            return _number(kind, own)
        case "array":
            return _array(own, normalize)
        case "object":
            return _object(own, normalize)
    return {"type": kind}


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


def _enum(schema: Schema) -> dict[str, Any] | None:
    for keyword in schema.keys() - {"enum", "type"}:
        raise unsupported(
            keyword, "not supported together with 'enum' or 'const'; list only the values that it allows"
        )
    if len(schema["enum"]) > MAX_VALUES:
        raise unsupported("enum", f"more than {MAX_VALUES} values")
    allowed = allowed_types(schema)
    fit = [each for each in schema["enum"] if json_type(each) in allowed or _is_number(each, allowed)]
    return {"enum": fit} if fit else None


def _is_number(value: Any, allowed: list[str]) -> bool:
    return "number" in allowed and json_type(value) == "integer"


def _string(own: dict[str, Any]) -> dict[str, Any] | None:
    lower, upper = _bounds(own, "Length")
    formats = [keyword for keyword in ("pattern", "format") if keyword in own]
    if formats and (lower or upper is not None):
        keyword = "minLength" if lower else "maxLength"
        raise unsupported(keyword, f"not supported together with {formats[0]!r}")
    if len(formats) > 1:
        raise unsupported("format", "not supported together with 'pattern'")
    if "pattern" in own:
        check_pattern(own["pattern"])
        return {"type": "string", "pattern": own["pattern"]}
    if "format" in own:
        if own["format"] not in FORMATS:
            raise unsupported("format", f"{own['format']!r} is not one of {', '.join(sorted(FORMATS))}")
        return {"type": "string", "pattern": f"^({FORMATS[own['format']]})$"}
    if upper is not None and lower > upper:
        return None
    if lower == 0 and upper is None:
        return {"type": "string"}
    return {"type": "string", "minLength": lower} | ({} if upper is None else {"maxLength": upper})


def _number(kind: str, own: dict[str, Any]) -> dict[str, Any] | None:
    for keyword, value in own.items():
        if abs(value) > MAX_NUMBER:
            raise unsupported(keyword, f"{value!r} exceeds {MAX_NUMBER:.0e}")
    if "multipleOf" in own and (kind != "integer" or len(own) > 1 or own["multipleOf"] not in range(1, 101)):
        raise unsupported("multipleOf", "only supported from 1 to 100, for integers without bounds")
    if kind == "integer":
        own = _integer_bounds(own)
    lower = max(own.get("minimum", -MAX_NUMBER), own.get("exclusiveMinimum", -MAX_NUMBER))
    upper = min(own.get("maximum", MAX_NUMBER), own.get("exclusiveMaximum", MAX_NUMBER))
    if lower > upper or (lower == upper and own.keys() & {"exclusiveMinimum", "exclusiveMaximum"}):
        return None
    return {"type": kind, **own}


def _integer_bounds(own: dict[str, Any]) -> dict[str, Any]:
    """Return the bounds of an integer as inclusive integers."""
    lower = [math.ceil(own[each]) for each in ("minimum",) if each in own]
    lower += [math.floor(own[each]) + 1 for each in ("exclusiveMinimum",) if each in own]
    upper = [math.floor(own[each]) for each in ("maximum",) if each in own]
    upper += [math.ceil(own[each]) - 1 for each in ("exclusiveMaximum",) if each in own]
    bounds = {"multipleOf": int(own["multipleOf"])} if "multipleOf" in own else {}
    if lower:
        bounds["minimum"] = max(lower)
    if upper:
        bounds["maximum"] = min(upper)
    return bounds


def _array(own: dict[str, Any], normalize: Normalize) -> dict[str, Any] | None:
    lower, upper = _bounds(own, "Items")
    if own.get("uniqueItems") and upper not in (0, 1):
        raise unsupported("uniqueItems", "a grammar can't compare items")
    prefix = [normalize(each) for each in own.get("prefixItems", ())]
    if None in prefix:
        upper = prefix.index(None) if upper is None else min(upper, prefix.index(None))
    items = normalize(own.get("items", True))
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


def _object(own: dict[str, Any], normalize: Normalize) -> dict[str, Any] | None:
    lower, upper = _bounds(own, "Properties")
    schemas = dict(own.get("properties", {}))
    required = list(dict.fromkeys(own.get("required", ())))
    others = own.get("additionalProperties", not schemas and not required and "patternProperties" not in own)
    for name in required:
        schemas.setdefault(name, own.get("additionalProperties", True))
    properties = {
        name: normalized for name, each in schemas.items() if (normalized := normalize(each)) is not None
    }
    if any(name not in properties for name in required):
        return None
    if "patternProperties" in own:
        return _pattern_properties(own, properties, lower, upper, normalize)
    additional = normalize(others)
    if lower > max(len(required), 1) and additional is not None:
        raise unsupported(
            "minProperties", "additional properties can't be counted, since a name may occur twice"
        )
    if (upper is not None and upper < max(lower, len(required))) or (
        additional is None and lower > len(properties)
    ):
        return None
    result: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    result["additionalProperties"] = False if additional is None else additional
    if lower > len(required):
        result["minProperties"] = lower
    if upper is not None and (additional is not None or upper < len(properties)):
        result["maxProperties"] = upper
    return result


def _pattern_properties(
    own: dict[str, Any], properties: dict[str, Any], lower: int, upper: int | None, normalize: Normalize
) -> dict[str, Any] | None:
    if properties or own.get("additionalProperties") not in (None, False) or lower or upper is not None:
        raise unsupported("patternProperties", "not supported together with other keywords about properties")
    if len(own["patternProperties"]) != 1:
        raise unsupported(
            "patternProperties", "only one pattern is supported, since several may match the same name"
        )
    [(pattern, schema)] = own["patternProperties"].items()
    check_pattern(pattern)
    value = normalize(schema)
    if value is None:
        return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    return {"type": "object", "patternProperties": {pattern: value}, "additionalProperties": False}


def _bounds(own: dict[str, Any], what: str) -> tuple[int, int | None]:
    """Return the lower and upper bound of ``min...`` and ``max...``; ``None`` if there is no upper bound."""
    lower, upper = own.get(f"min{what}", 0), own.get(f"max{what}")
    if lower > MAX_COUNT:
        raise unsupported(f"min{what}", f"{lower} is more than {MAX_COUNT}")
    limit = MAX_LENGTH if what == "Length" else MAX_COUNT
    return int(lower), None if upper is None else min(int(upper), limit)
