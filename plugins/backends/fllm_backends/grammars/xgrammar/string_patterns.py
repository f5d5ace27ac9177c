"""Replace the patterns and lengths of JSON strings in xgrammar's grammar of a schema.

The library's own patterns allow quotes and control characters in strings, and its lengths compile slowly.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fllm import RequestError
from fllm.structured_output.json_schema.typed_schemas import MAX_INTEGER
from fllm_backends.grammars.patterns import (
    ANY_CHARACTER,
    ANY_TEXT,
    CharClass,
    Node,
    RegexRepeat,
    parse_pattern,
)
from fllm_backends.grammars.rendering import render_regex


class StringPatterns:
    """Replaces patterns and lengths by numbers, until they are put into the generated grammar."""

    def __init__(self) -> None:
        self._expressions: list[str] = []
        self._rules: list[str] = []

    def extract(self, schema: Any) -> Any:
        """Return a normalized schema with numbers in place of patterns and lengths."""
        if isinstance(schema, list):
            return [self.extract(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        _check_supported(schema)
        if "enum" in schema:
            return _enum(schema["enum"])
        if schema.get("type") == "string":
            return self._string(schema)
        if "multipleOf" in schema:
            return {"type": "integer", "multipleOf": schema["multipleOf"]}
        extracted = dict(schema)
        for keyword in ("properties", "$defs"):
            if keyword in schema:
                extracted[keyword] = {name: self.extract(each) for name, each in schema[keyword].items()}
        for keyword in ("anyOf", "items", "prefixItems", "additionalProperties"):
            if keyword in schema:
                extracted[keyword] = self.extract(schema[keyword])
        if "patternProperties" in schema:
            [(pattern, value)] = schema["patternProperties"].items()
            extracted["patternProperties"] = {self._pattern(pattern): self.extract(value)}
        return extracted

    def restore(self, grammar: str) -> str:
        """Return the grammar with the expressions in place of their numbers."""
        text = re.sub(
            r'Regex\("(\d+)", json_string=true\)', lambda match: self._expressions[int(match[1])], grammar
        )
        return "\n".join([text, *self._rules])

    def _string(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "pattern" in schema:
            return {"type": "string", "pattern": self._pattern(schema["pattern"])}
        if "minLength" in schema:
            return {"type": "string", "pattern": self._length(schema["minLength"], schema.get("maxLength"))}
        return schema

    def _pattern(self, pattern: str) -> str:
        return self._placeholder(_json_regex(parse_pattern(pattern, full_match=False)))

    def _length(self, min_length: int, max_length: int | None) -> str:
        required = RegexRepeat(CharClass(ANY_CHARACTER), min_length, min_length)
        first = _json_regex(required) if min_length else '""'
        if max_length is None:
            return self._placeholder(f"({first} {_json_regex(ANY_TEXT)})")
        if max_length == min_length:
            return self._placeholder(first)
        name = f"bounded_{len(self._rules)}"
        self._rules.append(f"{name}[max_chars={max_length - min_length}] ::= {_json_regex(ANY_TEXT)}")
        return self._placeholder(f"({first} {name})")

    def _placeholder(self, expression: str) -> str:
        self._expressions.append(expression)
        return str(len(self._expressions) - 1)


def _check_supported(schema: dict[str, Any]) -> None:
    """Raise `RequestError` for combinations of keywords that the library ignores or rejects."""
    match schema:
        case {"enum": _, "pattern": _}:
            what = "'enum' together with 'pattern'"
        case {"type": "string", "allOf": _}:
            what = "several patterns, or excluded texts"
        case {"type": "string", "pattern": _, "minLength": _} | {
            "type": "string",
            "pattern": _,
            "maxLength": _,
        }:
            what = "'pattern' together with a length"
        case {"multipleOf": int(step)} if (
            schema["type"] == "integer" and step <= 100 and _is_unbounded(schema)
        ):
            return
        case {"multipleOf": _}:
            what = "'multipleOf', except up to 100 for integers without bounds"
        case {"patternProperties": patterns} if (
            len(patterns) > 1 or schema["properties"] or schema["additionalProperties"] is not False
        ):
            what = "'patternProperties' together with other properties"
        case {"properties": properties} if False in properties.values():
            what = "a property that is not allowed, while others are"
        case {"patternProperties": _, "minProperties": _} | {"patternProperties": _, "maxProperties": _}:
            what = "a number of properties together with 'patternProperties'"
        case _:
            return
    raise RequestError(f"the grammar backend xgrammar does not support {what}", code="unsupported_schema")


def _is_unbounded(schema: dict[str, Any]) -> bool:
    return bool(schema["minimum"] == -MAX_INTEGER and schema["maximum"] == MAX_INTEGER)


def _enum(values: list[Any]) -> dict[str, Any]:
    """Return the schema of an ``enum``.

    Arrays and objects become schemas, since the library formats constants differently from other values.
    """
    if not any(isinstance(value, list | dict) for value in values):
        return {"enum": values}
    return {"anyOf": [_const(value) for value in values]}


def _const(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        properties = {name: _const(each) for name, each in value.items()}
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(value)}
        return {**schema, "additionalProperties": False}
    if isinstance(value, list):
        items = [_const(each) for each in value]
        schema = {"type": "array", "items": False, "minItems": len(items)}
        return {**schema, "prefixItems": items} if items else schema
    return {"enum": [value]}


def _json_regex(node: Node) -> str:
    pattern = render_regex(node, in_json=True)
    return f"Regex({msgspec.json.encode(pattern).decode()})"
