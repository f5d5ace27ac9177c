"""What a parser made of a text, in plain values."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Parser, ParserContext, ParserEvent, Text, Tool, ToolArguments, ToolStart
from fllm.interfaces import ParserFactory
from fllm.testing import parse


def found(
    parser: ParserFactory, *pieces: str, tools: Iterable[Tool] = ()
) -> tuple[str, list[tuple[str, str]]]:
    """What is said, and name and arguments of each call."""
    made: Parser = parser(ParserContext(tools=tuple(tools)))
    events = parse(made, pieces)
    return said(events), called(events)


def said(events: Iterable[ParserEvent]) -> str:
    """All text."""
    return "".join(event.text for event in events if isinstance(event, Text))


def called(events: Iterable[ParserEvent]) -> list[tuple[str, str]]:
    """Name and arguments of each call."""
    events = [*events]
    names = [event.name for event in events if isinstance(event, ToolStart)]
    return list(zip(names, [each.text for each in events if isinstance(each, ToolArguments)], strict=True))
