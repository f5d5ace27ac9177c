"""A constraint as one of xgrammar's structural tags."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fllm import Constraint
from fllm.constraints import (
    Exactly,
    FreeText,
    Grammar,
    InOrder,
    JsonSchema,
    OneOf,
    Regex,
    Repeated,
    UpTo,
)
from fllm.schemas import simplify
from fllm_backends.grammars.imports import import_xgrammar
from fllm_backends.grammars.patterns import EVERY, Chars, Node, Repeat, read_pattern
from fllm_backends.grammars.rendering import regex

SEPARATORS = (", ", ": ")
"""Between the parts of a JSON text there stands nothing else: a small model would go on with spaces for ever.
This is how most JSON is written that models have read."""

BASIC = {
    "basic_escape": r'["\\bfnrt]',
    "basic_integer": '"0" | "-"? [1-9] [0-9]{0,17}',
    "basic_number": '"-"? ("0" | [1-9] [0-9]{0,17}) ("." [0-9]{1,17})? ([eE] [+\\-]? [0-9]{1,2})?',
}
"""Rules in place of the library's own. A character that needs no escape has none: else a name could come
twice, as ``a`` and as ``\\u0061``. Numbers are no longer than programs take, or a small model would go on."""


def structural_tag(constraint: Constraint) -> dict[str, Any]:
    """What `compile_structural_tag` takes."""
    return {"type": "structural_tag", "format": _format(constraint)}


def _format(constraint: Constraint) -> dict[str, Any]:
    match constraint:
        case Exactly(text=text):
            return _exactly(text)
        case JsonSchema(schema=schema):
            return {"type": "grammar", "grammar": json_grammar(schema)}
        case Regex(pattern=pattern):
            return {"type": "regex", "pattern": regex(read_pattern(pattern, whole=True), in_json=False)}
        case Grammar(source=source):
            return {"type": "grammar", "grammar": grammar(source)}
        case UpTo(end=end):
            return _tag("", {"type": "any_text"}, end)
        case InOrder(parts=parts):
            return _sequence(_format(part) for part in parts)
        case OneOf(options=options):
            return {"type": "or", "elements": [_format(option) for option in options]}
        case Repeated():
            return _repeated(constraint)
        case FreeText(triggers=triggers, tags=tags):
            return {
                "type": "triggered_tags",
                "triggers": list(triggers),
                "tags": [_tag(tag.begin, _format(tag.content), tag.end) for tag in tags],
            }


def json_grammar(schema: str) -> str:
    """The language of a schema, in the library's notation: structural tags know no separators."""
    patterns: list[str] = []
    simple = _numbered(msgspec.json.decode(simplify(schema)), patterns)
    made = import_xgrammar().Grammar.from_json_schema(
        msgspec.json.encode(simple).decode(), any_whitespace=False, separators=SEPARATORS
    )
    text = str(made)
    for rule, expression in BASIC.items():
        text = re.sub(f"(?m)^{rule} ::= .*$", lambda _, said=f"{rule} ::= {expression}": said, text)
    return re.sub(r'Regex\("(\d+)", json_string=true\)', lambda found: patterns[int(found[1])], text)


def _numbered(schema: Any, patterns: list[str]) -> Any:
    """Put the number of a pattern in its place, and of a length, too.

    The library's own way with them lets quotes and control characters into JSON strings.
    """
    if isinstance(schema, list):
        return [_numbered(each, patterns) for each in schema]
    if not isinstance(schema, dict) or "enum" in schema:
        return schema
    if schema.get("type") == "string":
        return _numbered_string(schema, patterns)
    found = dict(schema)
    for keyword in ("properties", "$defs"):
        if keyword in schema:
            found[keyword] = {name: _numbered(each, patterns) for name, each in schema[keyword].items()}
    for keyword in ("anyOf", "items", "prefixItems", "additionalProperties"):
        if keyword in schema:
            found[keyword] = _numbered(schema[keyword], patterns)
    if "patternProperties" in schema:
        [(pattern, value)] = schema["patternProperties"].items()
        name = _number(read_pattern(pattern, whole=False), patterns)
        found["patternProperties"] = {name: _numbered(value, patterns)}
    return found


def _numbered_string(schema: dict[str, Any], patterns: list[str]) -> dict[str, Any]:
    if "pattern" in schema:
        return {**schema, "pattern": _number(read_pattern(schema["pattern"], whole=False), patterns)}
    if "minLength" in schema:
        item = Repeat(Chars(EVERY), schema["minLength"], schema.get("maxLength"))
        return {"type": "string", "pattern": _number(item, patterns)}
    return schema


def _number(node: Node, patterns: list[str]) -> str:
    patterns.append(f"Regex({msgspec.json.encode(regex(node, in_json=True)).decode()})")
    return str(len(patterns) - 1)


def grammar(source: str) -> str:
    """GBNF as it is, Lark translated."""
    return source if "::=" in source else str(import_xgrammar().Grammar.from_lark(source))


def _repeated(constraint: Repeated) -> dict[str, Any]:
    item, least, most = _format(constraint.item), constraint.least, constraint.most
    if not constraint.separator:
        return _times(item, least, most)
    more = _sequence([_exactly(constraint.separator), item])
    rest = _times(more, max(least - 1, 0), None if most is None else most - 1)
    found = _sequence([item, rest])
    return found if least else _times(found, 0, 1)


def _times(item: dict[str, Any], least: int, most: int | None) -> dict[str, Any]:
    if most == 0:
        return _exactly("")
    return {"type": "repeat", "min": least, "max": -1 if most is None else most, "content": item}


def _sequence(parts: Any) -> dict[str, Any]:
    return {"type": "sequence", "elements": [*parts] or [_exactly("")]}


def _exactly(text: str) -> dict[str, Any]:
    return {"type": "const_string", "value": text}


def _tag(begin: str, content: dict[str, Any], end: str) -> dict[str, Any]:
    return {"type": "tag", "begin": begin, "content": content, "end": end}
