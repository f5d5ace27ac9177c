"""A constraint as one of xgrammar's structural tags."""

from __future__ import annotations

from typing import Any

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
from fllm_backends.grammars.imports import import_xgrammar

SEPARATORS = (", ", ": ")
"""Between the parts of a JSON text there stands nothing else: a small model would go on with spaces for ever.
This is how most JSON is written that models have read."""


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
            return {"type": "regex", "pattern": pattern}
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
    made = import_xgrammar().Grammar.from_json_schema(schema, any_whitespace=False, separators=SEPARATORS)
    return str(made)


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
