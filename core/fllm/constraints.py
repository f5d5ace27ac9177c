"""Constraints on the text of an output, for structured output and forced tool calls.

A constraint is plain data that can cross a process boundary: the API creates it from a request, and a grammar
backend enforces it when tokens are sampled. The leaves describe a piece of text; the other classes combine
pieces.
"""

from __future__ import annotations

from msgspec import Struct


class _Constraint(Struct, frozen=True, tag=True):
    pass


class ConstString(_Constraint, frozen=True):
    """Exactly this text."""

    text: str


class JsonSchema(_Constraint, frozen=True):
    """A JSON value that satisfies the schema."""

    schema: str
    """JSON text of the schema."""
    lenient: bool = False
    """Ignore keywords that can't be enforced, instead of refusing the schema."""


class Regex(_Constraint, frozen=True):
    """Text that the pattern matches in full."""

    pattern: str


class Grammar(_Constraint, frozen=True):
    """Text that a context-free grammar generates."""

    source: str
    """The grammar in GBNF, or in another notation that the grammar backend supports."""


class TextUntil(_Constraint, frozen=True):
    """Any text up to and including the first ``end``."""

    end: str
    without: tuple[str, ...] = ()
    """Strings that must not occur before the end."""


class Concat(_Constraint, frozen=True):
    """The parts, one after the other."""

    parts: tuple[Constraint, ...]


class AnyOf(_Constraint, frozen=True):
    """Any one of the options."""

    options: tuple[Constraint, ...]


class Repeat(_Constraint, frozen=True, kw_only=True):
    """The item, repeated ``min`` to ``max`` times."""

    item: Constraint
    separator: str = ""
    min: int = 1
    max: int | None = None
    """Maximum number of repetitions; ``None`` for no limit."""


class Tag(Struct, frozen=True):
    """A part of a text that begins with ``begin``, followed by ``content`` and ``end``."""

    begin: str
    content: Constraint
    end: str = ""


class TriggeredTags(_Constraint, frozen=True, kw_only=True):
    """Any text, except that where a trigger occurs, one of the tags must begin and be completed."""

    triggers: tuple[str, ...]
    """Strings that start a tag. The ``begin`` of each tag starts with exactly one of them."""
    tags: tuple[Tag, ...]


Constraint = ConstString | JsonSchema | Regex | Grammar | TextUntil | Concat | AnyOf | Repeat | TriggeredTags

ANY_OBJECT = JsonSchema('{"type":"object"}')
"""Any JSON object."""
