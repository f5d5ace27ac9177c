"""Normalize schemas of one type or of listed values, with explicit defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

from fllm.structured_output.json_schema.intersection import allowed_types, json_equal, json_type
from fllm.structured_output.json_schema.keywords import KEYWORDS_BY_TYPE, Schema, unsupported

MAX_COUNT = 500
"""Maximum lower bound of characters, items or properties. Higher upper bounds of items are lowered to it."""
MAX_LENGTH = 2**31 - 1
"""Maximum upper bound of a string's length; higher ones are lowered to it."""
MAX_INTEGER = 10**18 - 1
"""Maximum magnitude of an integer: 18 digits, which fit into 64 bits."""
MAX_NUMBER = 10**15
"""Maximum magnitude of a number's bounds: floats can't distinguish larger ones."""
MAX_DIGITS = 9
"""Maximum number of digits and of decimals of ``multipleOf``."""
MAX_VALUES = 2000
"""Maximum number of values of an ``enum``."""


class Subschemas(Protocol):
    """Interprets the schemas within a schema, and records what is not enforced."""

    def normalize(self, schema: Any) -> dict[str, Any] | None:
        """Return the normalized schema, or ``None`` if no value satisfies it."""
        ...

    def alternatives(self, schema: Any) -> list[dict[str, Any]]:
        """Return schemas without combinators, one of which must hold."""
        ...

    def note(self, keyword: str, what: str) -> None:
        """Record that a keyword is ignored or narrows the answer."""
        ...


def own_keywords(schema: Schema, kind: str) -> dict[str, Any]:
    """Return the keywords that constrain values of one type."""
    keywords = KEYWORDS_BY_TYPE.get("number" if kind == "integer" else kind, ())
    return {keyword: schema[keyword] for keyword in (*keywords, "not") if keyword in schema}


def normalize_enum(schema: Schema) -> dict[str, Any] | None:
    """Return the schema of those of the listed values that satisfy the other keywords, or ``None``."""
    if len(schema["enum"]) > MAX_VALUES:
        raise unsupported("enum", f"more than {MAX_VALUES} values")
    for keyword in (
        "items",
        "prefixItems",
        "contains",
        "properties",
        "additionalProperties",
        "propertyNames",
    ):
        if keyword in schema and any(isinstance(each, dict | list) for each in schema["enum"]):
            raise unsupported(
                keyword, "not supported together with 'enum'; list only the values that it allows"
            )
    fit = [each for each in schema["enum"] if _satisfies(each, schema)]
    if any(_has_long_integer(each) for each in fit):
        raise unsupported("enum", "an integer has more than 18 digits")
    if not fit:
        return None
    return (
        {"enum": fit, **_patterns(schema.get("pattern", ()))}
        if any(isinstance(each, str) for each in fit)
        else {"enum": fit}
    )


def normalize_string(own: Schema) -> dict[str, Any] | None:
    """Normalize the keywords of a string; return ``None`` if no string satisfies them."""
    lower, upper = bounds(own, "Length")
    if upper is not None and lower > upper:
        return None
    excluded = [each for each in own.get("not", ()) if isinstance(each, str)]
    others = [{"not": {"enum": excluded}}] if excluded else []
    result = {"type": "string", **_patterns([*own.get("pattern", ()), *others])}
    if lower or upper is not None:
        result["minLength"] = lower
    if upper is not None:
        result["maxLength"] = upper
    return result


def normalize_number(kind: str, own: Schema) -> dict[str, Any] | None:
    """Normalize the keywords of a number; return ``None`` if no number satisfies them."""
    excluded = sorted({each for each in own.get("not", ()) if json_type(each) in ("integer", "number")})
    if excluded:
        own = {keyword: value for keyword, value in own.items() if keyword != "not"}
        return any_of(normalize_number(kind, each) for each in _ranges_between(excluded, own))
    result = _integer_bounds(own) if kind == "integer" else _number_bounds(own)
    lower = max(result.get("minimum", -math.inf), result.get("exclusiveMinimum", -math.inf))
    upper = min(result.get("maximum", math.inf), result.get("exclusiveMaximum", math.inf))
    exclusive = result.keys() & {"exclusiveMinimum", "exclusiveMaximum"}
    if lower > upper or (lower == upper and exclusive):
        return None
    if "multipleOf" in own:
        _, digits, exponent = Decimal(repr(own["multipleOf"])).normalize().as_tuple()
        if len(digits) + max(int(exponent), 0) > MAX_DIGITS or -int(exponent) > MAX_DIGITS:
            raise unsupported("multipleOf", f"more than {MAX_DIGITS} digits")
        result["multipleOf"] = own["multipleOf"]
    return {"type": kind, **result}


def any_of(options: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the normalized schema of values that satisfy one of several, or ``None``."""
    satisfiable = [option for option in options if option is not None]
    if not satisfiable:
        return None
    if {} in satisfiable:
        return {}
    return satisfiable[0] if len(satisfiable) == 1 else {"anyOf": satisfiable}


def bounds(own: Schema, what: str) -> tuple[int, int | None]:
    """Return the lower and upper bound of ``min...`` and ``max...``; ``None`` if there is no upper bound."""
    lower, upper = own.get(f"min{what}", 0), own.get(f"max{what}")
    if lower > MAX_COUNT:
        raise unsupported(f"min{what}", f"{lower} is more than {MAX_COUNT}")
    limit = MAX_LENGTH if what == "Length" else MAX_COUNT
    return int(lower), None if upper is None else min(int(upper), limit)


def _patterns(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the keywords for all of these patterns; the first one is ``pattern``, if it is one."""
    first = schemas[0] if schemas and "pattern" in schemas[0] else {}
    others = list(schemas[1:] if first else schemas)
    return {**first, **({"allOf": others} if others else {})}


def _satisfies(value: Any, schema: Schema) -> bool:
    """Return whether a listed value satisfies the keywords, apart from patterns and those of items."""
    kind = json_type(value)
    types = allowed_types(schema)
    if kind not in types and not (kind == "integer" and "number" in types):
        return False
    if any(json_equal(value, other) for other in schema.get("not", ())):
        return False
    if isinstance(value, str | list | dict):
        what = {"string": "Length", "array": "Items", "object": "Properties"}[kind]
        return bool(schema.get(f"min{what}", 0) <= len(value) <= schema.get(f"max{what}", math.inf))
    if kind in ("null", "boolean"):
        return True
    return bool(
        schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
        and schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf)
        and Fraction(repr(value)) % Fraction(repr(schema.get("multipleOf", value or 1))) == 0
    )


def _has_long_integer(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(map(_has_long_integer, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and abs(value) > MAX_INTEGER


def _number_bounds(own: Schema) -> dict[str, Any]:
    """Return the bounds of a number, narrowed to those that floats can distinguish."""
    result = {}
    for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        if keyword in own:
            sign = -1 if keyword.lower().endswith("minimum") else 1
            if sign * own[keyword] < -MAX_NUMBER:
                raise unsupported(keyword, f"{own[keyword]!r} exceeds {MAX_NUMBER:.0e}")
            result[keyword] = sign * min(sign * own[keyword], MAX_NUMBER)
    return result


def _integer_bounds(own: Schema) -> dict[str, Any]:
    """Return the bounds of an integer as inclusive integers of at most 18 digits."""
    lower = [-MAX_INTEGER, *(math.ceil(own[each]) for each in ("minimum",) if each in own)]
    lower += [math.floor(own[each]) + 1 for each in ("exclusiveMinimum",) if each in own]
    upper = [MAX_INTEGER, *(math.floor(own[each]) for each in ("maximum",) if each in own)]
    upper += [math.ceil(own[each]) - 1 for each in ("exclusiveMaximum",) if each in own]
    for keyword, bound in (("minimum", max(lower)), ("maximum", -min(upper))):
        if bound > MAX_INTEGER:
            raise unsupported(keyword, "no integer of at most 18 digits satisfies it")
    return {"minimum": max(lower), "maximum": min(upper)}


def _ranges_between(excluded: list[Any], own: Schema) -> Iterable[dict[str, Any]]:
    for low, high in zip([None, *excluded], [*excluded, None], strict=True):
        between = dict(own)
        if low is not None:
            between["exclusiveMinimum"] = max(low, own.get("exclusiveMinimum", low))
        if high is not None:
            between["exclusiveMaximum"] = min(high, own.get("exclusiveMaximum", high))
        yield between
