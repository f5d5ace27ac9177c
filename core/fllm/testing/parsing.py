"""A parser run over a whole text."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.events import ParserEvent, merge_events
from fllm.interfaces import Parser


def parse(parser: Parser, pieces: Iterable[str]) -> list[ParserEvent]:
    """Everything that a parser makes of a text which comes in these pieces, merged."""
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merge_events([*events, *parser.finish()])
