"""A parser whose errors name the plugin that it came from, and whose time is measured."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from fllm.containment import mapped, mapped_list
from fllm.errors import FllmError
from fllm.events import ParserEvent
from fllm.interfaces import LoadedParser, Parser


class ContainedParser:
    """Calls a parser and reports its errors to the plugin that offers it. The request fails nevertheless."""

    def __init__(self, parser: Parser, loaded: LoadedParser) -> None:
        self._parser = parser
        self._loaded = loaded
        self._feed = mapped_list(parser.feed, loaded.report, passing=(FllmError,))
        self._seconds = 0.0
        self._characters = 0
        self._events = 0

    def feed(self, text: str) -> list[ParserEvent]:
        """Call `Parser.feed`. It runs once per token."""
        started_at = perf_counter()
        events = self._feed(text)
        self._seconds += perf_counter() - started_at
        self._characters += len(text)
        self._events += len(events)
        return events

    def finish(self) -> Iterable[ParserEvent]:
        """Call `Parser.finish`."""
        started_at = perf_counter()
        with mapped(self._loaded.report, passing=(FllmError,)):
            events = [*self._parser.finish()]
        self._seconds += perf_counter() - started_at
        self._events += len(events)
        return events

    def close(self) -> None:
        """Report the usage of the parser. Call it once, at the end of the sequence."""
        self._loaded.meter.add(
            calls=1, seconds=self._seconds, events=self._events, characters=self._characters
        )
