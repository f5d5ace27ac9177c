"""Reject oversized constraints before compiling them."""

from __future__ import annotations

from fllm import Constraint, RequestError
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

MAX_CHARACTERS = 128 * 1024
"""Maximum total length of the schemas, patterns and texts of a constraint."""


def check_size(constraint: Constraint) -> None:
    """Raise `RequestError` if a constraint is too long."""
    size = _size(constraint)
    if size > MAX_CHARACTERS:
        raise RequestError(f"the grammar has {size} characters; the maximum is {MAX_CHARACTERS}")


def _size(constraint: Constraint) -> int:
    match constraint:
        case ConstString(text=text) | JsonSchema(schema=text) | Regex(pattern=text) | Grammar(source=text):
            return len(text)
        case TextUntil(end=end, without=without):
            return len(end) + sum(map(len, without))
        case Concat(parts=several) | AnyOf(options=several):
            return sum(map(_size, several))
        case Repeat(item=item, separator=separator):
            return _size(item) + len(separator)
        case TriggeredTags(triggers=triggers, tags=tags):
            return sum(map(len, triggers)) + sum(
                len(tag.begin) + _size(tag.content) + len(tag.end) for tag in tags
            )
