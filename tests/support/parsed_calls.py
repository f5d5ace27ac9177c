"""The text and the calls that a parser finds, as plain values."""

from __future__ import annotations

from collections.abc import Iterable

from fllm import Parser, ParserContext, ParserEvent, Text, Tool, ToolArguments, ToolStart
from fllm.interfaces import ParserFactory
from fllm.testing import parse


def parse_calls(
    parser: ParserFactory, *pieces: str, tools: Iterable[Tool] = ()
) -> tuple[str, list[tuple[str, str]]]:
    """Return the text, and the name and arguments of each call."""
    made: Parser = parser(ParserContext(tools=tuple(tools)))
    events = parse(made, pieces)
    return text_of(events), calls_of(events)


def text_of(events: Iterable[ParserEvent]) -> str:
    """Return all text."""
    return "".join(event.text for event in events if isinstance(event, Text))


def calls_of(events: Iterable[ParserEvent]) -> list[tuple[str, str]]:
    """Return the name and arguments of each call."""
    calls: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, ToolStart):
            calls.append((event.name, ""))
        elif isinstance(event, ToolArguments):
            name, arguments = calls[event.index]
            calls[event.index] = (name, arguments + event.text)
    return calls
