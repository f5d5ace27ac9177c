"""The size of a constraint, which is limited before it waits to be compiled."""

from __future__ import annotations

from fllm.constraints import (
    AnyOf,
    Concat,
    Constraint,
    ConstString,
    Grammar,
    JsonSchema,
    Regex,
    Repeat,
    TextUntil,
    TriggeredTags,
)


def constraint_size(constraint: Constraint) -> int:
    """Return the total length of the schemas, patterns and texts of a constraint."""
    match constraint:
        case ConstString(text=text) | JsonSchema(schema=text) | Regex(pattern=text) | Grammar(source=text):
            return len(text)
        case TextUntil(end=end, without=without):
            return len(end) + sum(map(len, without))
        case Concat(parts=several) | AnyOf(options=several):
            return sum(map(constraint_size, several))
        case Repeat(item=item, separator=separator):
            return constraint_size(item) + len(separator)
        case TriggeredTags(triggers=triggers, tags=tags):
            return sum(map(len, triggers)) + sum(
                len(tag.begin) + constraint_size(tag.content) + len(tag.end) for tag in tags
            )
