"""A parser whose errors name the plugin that it came from."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.containment import mapped, mapped_list
from fllm.errors import FllmError
from fllm.events import ParserEvent
from fllm.interfaces import LoadedParser, Parser


class ContainedParser:
    """Calls a parser and reports its errors to the plugin that offers it. The request fails nevertheless."""

    def __init__(self, parser: Parser, loaded: LoadedParser) -> None:
        self._parser = parser
        self._report = loaded.report
        self.feed = mapped_list(parser.feed, loaded.report, passing=(FllmError,))
        """Calls `Parser.feed`. It runs once per token."""

    def finish(self) -> Iterable[ParserEvent]:
        """Call `Parser.finish`."""
        with mapped(self._report, passing=(FllmError,)):
            return [*self._parser.finish()]
