"""A schema of one type, or of a few values: only keywords that belong together, with their defaults said."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fllm.structured_output.json_schema.formats import FORMATS
from fllm.structured_output.json_schema.intersection import types
from fllm.structured_output.json_schema.keywords import ABOUT, Schema, refuse
from fllm.structured_output.json_schema.patterns import check_pattern

MAX_COUNT = 500
"""Characters, items or properties that can be demanded; a higher upper bound of items is lowered to it."""
MAX_LENGTH = 2**31 - 1
"""Characters of a string; a higher upper bound is lowered to it."""
MAX_NUMBER = 10**15
"""Bounds of numbers beyond it are refused: a float does not tell them apart."""
MAX_VALUES = 2000
"""Of an ``enum``."""
Simple = Callable[[Any], dict[str, Any] | None]
"""Simplifies a schema within this one; ``None`` if it allows nothing."""


def simple_value(schema: Schema, simple: Simple) -> dict[str, Any] | None:
    """A schema that names one type or some values; ``None`` if it allows nothing."""
    if "enum" in schema:
        return _values(schema)
    [kind] = types(schema)
    about = ABOUT.get("number" if kind == "integer" else kind, ())
    own = {keyword: schema[keyword] for keyword in about if keyword in schema}
    match kind:
        case "string":
            return _string(own)
        case "integer" | "number":
            return _number(kind, own)
        case "array":
            return _array(own, simple)
        case "object":
            return _object(own, simple)
    return {"type": kind}


def type_of(value: Any) -> str:
    """The narrowest type of a JSON value."""
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


def _values(schema: Schema) -> dict[str, Any] | None:
    for keyword in schema.keys() - {"enum", "type"}:
        raise refuse(keyword, "it stands beside 'enum' or 'const', which should hold only what it allows")
    if len(schema["enum"]) > MAX_VALUES:
        raise refuse("enum", f"it has more than {MAX_VALUES} values")
    allowed = types(schema)
    fit = [each for each in schema["enum"] if type_of(each) in allowed or _is_number(each, allowed)]
    return {"enum": fit} if fit else None


def _is_number(value: Any, allowed: list[str]) -> bool:
    return "number" in allowed and type_of(value) == "integer"


def _string(own: dict[str, Any]) -> dict[str, Any] | None:
    least, most = _bounds(own, "Length")
    ways = [keyword for keyword in ("pattern", "format") if keyword in own]
    if ways and (least or most is not None):
        raise refuse("minLength" if least else "maxLength", f"it stands beside {ways[0]!r}")
    if len(ways) > 1:
        raise refuse("format", "it stands beside 'pattern'")
    if "pattern" in own:
        check_pattern(own["pattern"])
        return {"type": "string", "pattern": own["pattern"]}
    if "format" in own:
        if own["format"] not in FORMATS:
            raise refuse("format", f"{own['format']!r} is not among {', '.join(sorted(FORMATS))}")
        return {"type": "string", "pattern": f"^({FORMATS[own['format']]})$"}
    if most is not None and least > most:
        return None
    if least == 0 and most is None:
        return {"type": "string"}
    return {"type": "string", "minLength": least} | ({} if most is None else {"maxLength": most})


def _number(kind: str, own: dict[str, Any]) -> dict[str, Any] | None:
    for keyword, value in own.items():
        if abs(value) > MAX_NUMBER:
            raise refuse(keyword, f"{value!r} is beyond {MAX_NUMBER:.0e}")
    if "multipleOf" in own and (kind != "integer" or len(own) > 1 or own["multipleOf"] not in range(1, 101)):
        raise refuse("multipleOf", "only integers without bounds can be multiples, of 1 to 100")
    if kind == "integer":
        own = _whole(own)
    least = max(own.get("minimum", -MAX_NUMBER), own.get("exclusiveMinimum", -MAX_NUMBER))
    most = min(own.get("maximum", MAX_NUMBER), own.get("exclusiveMaximum", MAX_NUMBER))
    if least > most or (least == most and own.keys() & {"exclusiveMinimum", "exclusiveMaximum"}):
        return None
    return {"type": kind, **own}


def _whole(own: dict[str, Any]) -> dict[str, Any]:
    """The bounds of an integer as integers that are allowed themselves."""
    least = [math.ceil(own[each]) for each in ("minimum",) if each in own]
    least += [math.floor(own[each]) + 1 for each in ("exclusiveMinimum",) if each in own]
    most = [math.floor(own[each]) for each in ("maximum",) if each in own]
    most += [math.ceil(own[each]) - 1 for each in ("exclusiveMaximum",) if each in own]
    found = {"multipleOf": int(own["multipleOf"])} if "multipleOf" in own else {}
    if least:
        found["minimum"] = max(least)
    if most:
        found["maximum"] = min(most)
    return found


def _array(own: dict[str, Any], simple: Simple) -> dict[str, Any] | None:
    least, most = _bounds(own, "Items")
    if own.get("uniqueItems") and most not in (0, 1):
        raise refuse("uniqueItems", "a grammar can't compare items")
    prefix = [simple(each) for each in own.get("prefixItems", ())]
    if None in prefix:
        most = prefix.index(None) if most is None else min(most, prefix.index(None))
    items = simple(own.get("items", True))
    if items is None:
        most = len(prefix) if most is None else min(most, len(prefix))
    if most is not None and least > most:
        return None
    found: dict[str, Any] = {"type": "array", "items": False if items is None else items}
    if kept := [each for each in prefix[:most] if each is not None]:
        found["prefixItems"] = kept
    if least:
        found["minItems"] = least
    if most is not None and (items is not None or most < len(kept)):
        found["maxItems"] = most
    return found


def _object(own: dict[str, Any], simple: Simple) -> dict[str, Any] | None:
    least, most = _bounds(own, "Properties")
    given = dict(own.get("properties", {}))
    required = list(dict.fromkeys(own.get("required", ())))
    others = own.get("additionalProperties", not given and not required and "patternProperties" not in own)
    for name in required:
        given.setdefault(name, own.get("additionalProperties", True))
    properties = {name: made for name, each in given.items() if (made := simple(each)) is not None}
    if any(name not in properties for name in required):
        return None
    if "patternProperties" in own:
        return _map_by_pattern(own, properties, least, most, simple)
    additional = simple(others)
    if least > max(len(required), 1) and additional is not None:
        raise refuse("minProperties", "names that are not in 'properties' may come twice")
    if (most is not None and most < max(least, len(required))) or (
        additional is None and least > len(properties)
    ):
        return None
    found: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    found["additionalProperties"] = False if additional is None else additional
    if least > len(required):
        found["minProperties"] = least
    if most is not None and (additional is not None or most < len(properties)):
        found["maxProperties"] = most
    return found


def _map_by_pattern(
    own: dict[str, Any], properties: dict[str, Any], least: int, most: int | None, simple: Simple
) -> dict[str, Any] | None:
    if properties or own.get("additionalProperties") not in (None, False) or least or most is not None:
        raise refuse("patternProperties", "it stands beside other keywords about properties")
    if len(own["patternProperties"]) != 1:
        raise refuse("patternProperties", "it has several patterns, of which two may hold for a name")
    [(pattern, schema)] = own["patternProperties"].items()
    check_pattern(pattern)
    value = simple(schema)
    if value is None:
        return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    return {"type": "object", "patternProperties": {pattern: value}, "additionalProperties": False}


def _bounds(own: dict[str, Any], what: str) -> tuple[int, int | None]:
    """The least and the most; ``None``: there is no upper bound."""
    least, most = own.get(f"min{what}", 0), own.get(f"max{what}")
    if least > MAX_COUNT:
        raise refuse(f"min{what}", f"{least} is more than {MAX_COUNT}")
    limit = MAX_LENGTH if what == "Length" else MAX_COUNT
    return int(least), None if most is None else min(int(most), limit)
