"""Convert a constraint to an xgrammar structural tag."""

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
from fllm_backends.grammars.patterns import parse_pattern
from fllm_backends.grammars.rendering import render_regex
from fllm_backends.grammars.xgrammar.imports import import_xgrammar
from fllm_backends.grammars.xgrammar.string_patterns import StringPatterns

SEPARATORS = (", ", ": ")
"""The only whitespace in JSON, since a small model might generate spaces forever. Most JSON in training data
is formatted like this."""

BASIC_RULES = {
    "basic_escape": r'["\\bfnrt]',
    "basic_integer": '"0" | "-"? [1-9] [0-9]{0,17}',
    "basic_number": '"-"? ("0" | [1-9] [0-9]{0,17}) ("." [0-9]{1,17})? ([eE] [+\\-]? [0-9]{1,2})?',
}
"""Rules that replace the library's own. Characters are escaped only if required; otherwise a name could occur
twice, as ``a`` and as ``\\u0061``. Numbers have limited length, since a small model might go on forever."""


def structural_tag(constraint: Constraint) -> dict[str, Any]:
    """Return the argument of xgrammar's `compile_structural_tag`."""
    return {"type": "structural_tag", "format": _format(constraint)}


def _format(constraint: Constraint) -> dict[str, Any]:
    match constraint:
        case ConstString(text=text):
            return _const_string(text)
        case JsonSchema(schema=schema, lenient=lenient):
            return {"type": "grammar", "grammar": json_grammar(schema, lenient=lenient)}
        case Regex(pattern=pattern):
            rendered = render_regex(parse_pattern(pattern, full_match=True), in_json=False)
            return {"type": "regex", "pattern": rendered}
        case Grammar(source=source):
            return {"type": "grammar", "grammar": ebnf_grammar(source)}
        case TextUntil(end=end, without=without):
            return _tag("", {"type": "any_text", "excludes": list(without)}, end)
        case Concat(parts=parts):
            return _sequence(_format(part) for part in parts)
        case AnyOf(options=options):
            return {"type": "or", "elements": [_format(option) for option in options]}
        case Repeat():
            return _repeat(constraint)
        case TriggeredTags(triggers=triggers, tags=tags):
            return {
                "type": "triggered_tags",
                "triggers": list(triggers),
                "tags": [_tag(tag.begin, _format(tag.content), tag.end) for tag in tags],
            }


def json_grammar(schema: str, *, lenient: bool = False) -> str:
    """Return the grammar of a schema in xgrammar's EBNF; structural tags can't set separators."""
    string_patterns = StringPatterns()
    schema_without_patterns = string_patterns.extract(
        msgspec.json.decode(normalize_schema(schema, lenient=lenient))
    )
    generated = import_xgrammar().Grammar.from_json_schema(
        msgspec.json.encode(schema_without_patterns).decode(), any_whitespace=False, separators=SEPARATORS
    )
    text = _to_ebnf(generated)
    for rule, expression in BASIC_RULES.items():
        # In the template of a substitution, a backslash is written twice.
        definition = f"{rule} ::= {expression}".replace("\\", r"\\")
        text = re.sub(f"(?m)^{rule} ::= .*$", definition, text)
    return string_patterns.restore(text)


def ebnf_grammar(source: str) -> str:
    """Return a grammar as EBNF: GBNF unchanged, Lark translated."""
    return source if "::=" in source else _to_ebnf(import_xgrammar().Grammar.from_lark(source))


def _to_ebnf(grammar: Any) -> str:
    """Print a grammar so that it can be parsed again: the library reads digits after an escape into it."""

    def raw(match: re.Match[str]) -> str:
        code = int(match[1][1:], 16) if match[1] != "\\" else 0
        return chr(code) if code > 127 else match[0]

    return re.sub(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", raw, str(grammar))


def _repeat(constraint: Repeat) -> dict[str, Any]:
    item, lower, upper = _format(constraint.item), constraint.min, constraint.max
    if not constraint.separator:
        return _repeat_format(item, lower, upper)
    more = _sequence([_const_string(constraint.separator), item])
    rest = _repeat_format(more, max(lower - 1, 0), None if upper is None else upper - 1)
    repeated = _sequence([item, rest])
    return repeated if lower else _repeat_format(repeated, 0, 1)


def _repeat_format(item: dict[str, Any], lower: int, upper: int | None) -> dict[str, Any]:
    if upper == 0:
        return _const_string("")
    return {"type": "repeat", "min": lower, "max": -1 if upper is None else upper, "content": item}


def _sequence(parts: Any) -> dict[str, Any]:
    return {"type": "sequence", "elements": [*parts] or [_const_string("")]}


def _const_string(text: str) -> dict[str, Any]:
    return {"type": "const_string", "value": text}


def _tag(begin: str, content: dict[str, Any], end: str) -> dict[str, Any]:
    return {"type": "tag", "begin": begin, "content": content, "end": end}
