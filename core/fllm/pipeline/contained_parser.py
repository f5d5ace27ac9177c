"""A parser whose errors name the plugin that it came from."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.containment import mapped
from fllm.errors import FllmError
from fllm.events import ParserEvent
from fllm.interfaces import LoadedParser, Parser


class ContainedParser:
    """Calls a parser and reports its errors to the plugin that offers it; the request fails all the same."""

    def __init__(self, parser: Parser, loaded: LoadedParser) -> None:
        self._parser = parser
        self._mapped = mapped(loaded.report, passing=(FllmError,))

    def feed(self, text: str) -> Iterable[ParserEvent]:
        """Call `Parser.feed`."""
        with self._mapped:
            return [*self._parser.feed(text)]

    def finish(self) -> Iterable[ParserEvent]:
        """Call `Parser.finish`."""
        with self._mapped:
            return [*self._parser.finish()]
