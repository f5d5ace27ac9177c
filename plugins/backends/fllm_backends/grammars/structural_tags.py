"""A constraint as one of xgrammar's structural tags."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fllm import Constraint
from fllm.constraints import (
    AnyOf,
    Concat,
    ConstString,
    Grammar,
    JsonSchema,
    Regex,
    Repeat,
    TextUntil,
    TriggeredTags,
)
from fllm.structured_output.json_schema import normalize_schema
from fllm_backends.grammars.imports import import_xgrammar
from fllm_backends.grammars.patterns import read_pattern
from fllm_backends.grammars.rendering import regex
from fllm_backends.grammars.strings import Strings

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
        case ConstString(text=text):
            return _exactly(text)
        case JsonSchema(schema=schema):
            return {"type": "grammar", "grammar": json_grammar(schema)}
        case Regex(pattern=pattern):
            return {"type": "regex", "pattern": regex(read_pattern(pattern, whole=True), in_json=False)}
        case Grammar(source=source):
            return {"type": "grammar", "grammar": grammar(source)}
        case TextUntil(end=end, without=without):
            return _tag("", {"type": "any_text", "excludes": list(without)}, end)
        case Concat(parts=parts):
            return _sequence(_format(part) for part in parts)
        case AnyOf(options=options):
            return {"type": "or", "elements": [_format(option) for option in options]}
        case Repeat():
            return _repeated(constraint)
        case TriggeredTags(triggers=triggers, tags=tags):
            return {
                "type": "triggered_tags",
                "triggers": list(triggers),
                "tags": [_tag(tag.begin, _format(tag.content), tag.end) for tag in tags],
            }


def json_grammar(schema: str) -> str:
    """The language of a schema, in the library's notation: structural tags know no separators."""
    strings = Strings()
    simple = strings.numbered(msgspec.json.decode(normalize_schema(schema)))
    made = import_xgrammar().Grammar.from_json_schema(
        msgspec.json.encode(simple).decode(), any_whitespace=False, separators=SEPARATORS
    )
    text = _printed(made)
    for rule, expression in BASIC.items():
        said = f"{rule} ::= {expression}".replace("\\", r"\\")  # in a template, a backslash is two
        text = re.sub(f"(?m)^{rule} ::= .*$", said, text)
    return strings.replaced(text)


def grammar(source: str) -> str:
    """GBNF as it is, Lark translated."""
    return source if "::=" in source else _printed(import_xgrammar().Grammar.from_lark(source))


def _printed(made: Any) -> str:
    """A grammar as it can be read in again: the library would take digits behind an escape into it."""

    def raw(found: re.Match[str]) -> str:
        code = int(found[1][1:], 16) if found[1] != "\\" else 0
        return chr(code) if code > 127 else found[0]

    return re.sub(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", raw, str(made))


def _repeated(constraint: Repeat) -> dict[str, Any]:
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
