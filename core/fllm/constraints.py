"""What the text of an answer must be like.

A constraint is data: made where a request is read, plain enough to cross a process boundary, and obeyed
where tokens are chosen, by a grammar plugin. The leaves say what a piece of text is, the others put pieces
together.
"""

from __future__ import annotations

from msgspec import Struct


class _Constraint(Struct, frozen=True, tag=True):
    pass


class ConstString(_Constraint, frozen=True):
    """This very text."""

    text: str


class JsonSchema(_Constraint, frozen=True):
    """A JSON value that the schema allows."""

    schema: str
    """The JSON text of the schema."""


class Regex(_Constraint, frozen=True):
    """A text that the whole pattern matches."""

    pattern: str


class Grammar(_Constraint, frozen=True):
    """A text of the language that a context-free grammar generates."""

    source: str
    """GBNF, or whatever notation the grammar plugin reads."""


class TextUntil(_Constraint, frozen=True):
    """Any text, up to and with the first ``end``."""

    end: str
    without: tuple[str, ...] = ()
    """What the text before the end must not have in it."""


class Concat(_Constraint, frozen=True):
    """One after the other."""

    parts: tuple[Constraint, ...]


class AnyOf(_Constraint, frozen=True):
    """Any one of them."""

    options: tuple[Constraint, ...]


class Repeat(_Constraint, frozen=True, kw_only=True):
    """The same again and again."""

    item: Constraint
    separator: str = ""
    min: int = 1
    max: int | None = None
    """``None``: no limit."""


class Tag(Struct, frozen=True):
    """A part of a text that is known by how it begins: ``begin``, then ``content``, then ``end``."""

    begin: str
    content: Constraint
    end: str = ""


class TriggeredTags(_Constraint, frozen=True, kw_only=True):
    """Any text; but where one of the triggers stands, one of the tags must begin there and end as it says."""

    triggers: tuple[str, ...]
    """Each tag begins with exactly one of them."""
    tags: tuple[Tag, ...]


Constraint = ConstString | JsonSchema | Regex | Grammar | TextUntil | Concat | AnyOf | Repeat | TriggeredTags

ANY_OBJECT = JsonSchema('{"type":"object"}')
"""Some JSON object."""
