"""The parsers to fuzz: every registered parser, from any plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

from msgspec import Struct

from fllm import Parser, ParserContext
from fllm.plugins.registry import Registry
from fllm.testing import plugins_with

Kind = Literal["tool", "reasoning"]

_DECLARED = (
    "opening", "closing", "section_markers", "inner_markers", "ignored_section", "answer_tags",
    "implicit_end", "visible_tokens", "quotes",
)  # fmt: skip
"""Class attributes in which parsers with our base classes declare their markers."""


class Subject(Struct, frozen=True):
    """A parser under the first of its names."""

    kind: Kind
    name: str
    make: Callable[[ParserContext], Parser]

    @property
    def title(self) -> str:
        """The name in reports."""
        return f"{self.kind}/{self.name}"

    @property
    def markers(self) -> tuple[str, ...]:
        """All markers that the class declares."""
        named = (getattr(self.make, attribute, ()) for attribute in _DECLARED)
        return tuple(dict.fromkeys(marker for markers in named for marker in _texts(markers)))


def subjects() -> list[Subject]:
    """Return one subject for each class, which several names may share."""
    plugins = plugins_with()
    return [
        *_distinct("tool", plugins.tool_parsers),
        *_distinct("reasoning", plugins.reasoning_parsers),
    ]


def _distinct(kind: Kind, registry: Registry) -> Iterator[Subject]:
    seen: set[str] = set()
    for registration in registry:
        entry = registration.entry
        if entry.target not in seen:
            seen.add(entry.target)
            yield Subject(kind, entry.name, registry.load(entry.name).factory)


def _texts(value: object) -> Sequence[str]:
    """Return the strings of a declaration, which may be a Struct."""
    if isinstance(value, Struct):
        return [text for field in value.__struct_fields__ for text in _texts(getattr(value, field))]
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list | tuple | frozenset):
        return [text for each in cast("Sequence[Any]", value) for text in _texts(each)]
    return []
