"""Run a parser on a complete text."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.events import ParserEvent, merge_events
from fllm.interfaces import Parser


def parse(parser: Parser, pieces: Iterable[str]) -> list[ParserEvent]:
    """Feed these pieces of a text to a parser, finish it, and return the merged events."""
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merge_events([*events, *parser.finish()])
