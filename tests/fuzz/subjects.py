"""What is fuzzed: every parser that is registered here, whoever registered it."""

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
"""Class attributes in which parsers of ours, and those that are made like them, name their markers."""


class Subject(Struct, frozen=True):
    """A parser, under the first of its names."""

    kind: Kind
    name: str
    make: Callable[[ParserContext], Parser]

    @property
    def title(self) -> str:
        """What a report calls it."""
        return f"{self.kind}/{self.name}"

    @property
    def markers(self) -> tuple[str, ...]:
        """All that it says of its markers."""
        named = (getattr(self.make, attribute, ()) for attribute in _DECLARED)
        return tuple(dict.fromkeys(marker for markers in named for marker in _texts(markers)))


def subjects() -> list[Subject]:
    """One for each class: several names may share one."""
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
    """The strings of a declaration, which may also be a Struct of them."""
    if isinstance(value, Struct):
        return [text for field in value.__struct_fields__ for text in _texts(getattr(value, field))]
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, list | tuple | frozenset):
        return [text for each in cast("Sequence[Any]", value) for text in _texts(each)]
    return []
