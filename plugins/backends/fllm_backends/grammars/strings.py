"""Patterns and lengths of JSON strings, put into xgrammar's grammar of a schema from outside.

The library's own way with them lets quotes and control characters into strings, and takes long for lengths.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fllm_backends.grammars.patterns import EVERY, CharClass, RegexRepeat, read_pattern
from fllm_backends.grammars.rendering import regex

_ANY = regex(RegexRepeat(CharClass(EVERY), 0, None), in_json=True)


class Strings:
    """Numbers patterns and lengths; the numbers stand in their place until the grammar is made."""

    def __init__(self) -> None:
        self._expressions: list[str] = []
        self._rules: list[str] = []

    def numbered(self, schema: Any) -> Any:
        """A simplified schema with numbers for patterns."""
        if isinstance(schema, list):
            return [self.numbered(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        if "enum" in schema:
            return _constants(schema["enum"])
        if schema.get("type") == "string":
            return self._string(schema)
        found = dict(schema)
        for keyword in ("properties", "$defs"):
            if keyword in schema:
                found[keyword] = {name: self.numbered(each) for name, each in schema[keyword].items()}
        for keyword in ("anyOf", "items", "prefixItems", "additionalProperties"):
            if keyword in schema:
                found[keyword] = self.numbered(schema[keyword])
        if "patternProperties" in schema:
            [(pattern, value)] = schema["patternProperties"].items()
            found["patternProperties"] = {self._pattern(pattern): self.numbered(value)}
        return found

    def replaced(self, grammar: str) -> str:
        """The grammar, with what the numbers stand for."""
        text = re.sub(
            r'Regex\("(\d+)", json_string=true\)', lambda found: self._expressions[int(found[1])], grammar
        )
        return "\n".join([text, *self._rules])

    def _string(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "pattern" in schema:
            return {"type": "string", "pattern": self._pattern(schema["pattern"])}
        if "minLength" in schema:
            return {"type": "string", "pattern": self._length(schema["minLength"], schema.get("maxLength"))}
        return schema

    def _pattern(self, pattern: str) -> str:
        return self._number(_macro(regex(read_pattern(pattern, whole=False), in_json=True)))

    def _length(self, least: int, most: int | None) -> str:
        first = _macro(regex(RegexRepeat(CharClass(EVERY), least, least), in_json=True)) if least else '""'
        if most is None:
            return self._number(f"({first} {_macro(_ANY)})")
        if most == least:
            return self._number(first)
        name = f"bounded_{len(self._rules)}"
        self._rules.append(f"{name}[max_chars={most - least}] ::= {_macro(_ANY)}")
        return self._number(f"({first} {name})")

    def _number(self, expression: str) -> str:
        self._expressions.append(expression)
        return str(len(self._expressions) - 1)


def _constants(values: list[Any]) -> dict[str, Any]:
    """The library writes arrays and objects among constants in a style of its own; as schemas, in ours."""
    if not any(isinstance(value, list | dict) for value in values):
        return {"enum": values}
    return {"anyOf": [_constant(value) for value in values]}


def _constant(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        properties = {name: _constant(each) for name, each in value.items()}
        made: dict[str, Any] = {"type": "object", "properties": properties, "required": list(value)}
        return {**made, "additionalProperties": False}
    if isinstance(value, list):
        items = [_constant(each) for each in value]
        made = {"type": "array", "items": False, "minItems": len(items)}
        return {**made, "prefixItems": items} if items else made
    return {"enum": [value]}


def _macro(pattern: str) -> str:
    return f"Regex({msgspec.json.encode(pattern).decode()})"
