"""What parts of plugins cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from fllm import Entry, ParserContext, ParserEvent, Text, hookimpl
from fllm.pipeline.contained_parser import ContainedParser
from fllm.plugin_usage import UsageMeters
from fllm.testing import plugins_with


class Doubling:
    def __init__(self, context: ParserContext) -> None: ...

    def feed(self, text: str) -> Iterable[ParserEvent]:
        if text == "bad":
            raise ValueError("broken")
        return [Text(text), Text(text)]

    def finish(self) -> Iterable[ParserEvent]:
        return [Text("end")]


class Offers:
    @hookimpl
    def fllm_tool_parsers(self) -> list[Entry]:
        return [Entry("doubling", f"{__name__}:Doubling")]


def test_a_parser_reports_once_per_sequence() -> None:
    plugins = plugins_with(Offers(), installed=False)
    loaded: Any = plugins.tool_parsers.load("doubling")
    assert plugins.usage.used() == []
    parser = ContainedParser(loaded(ParserContext()), loaded)
    parser.feed("four")
    parser.feed("five!")
    assert plugins.usage.used() == []
    parser.finish()
    parser.close()
    [usage] = plugins.usage.used()
    assert (usage.kind, usage.name, usage.calls) == ("tool-call parser", "doubling", 1)
    assert (usage.characters, usage.events, usage.errors) == (9, 5, 0)
    assert usage.seconds > 0


def test_an_error_of_a_parser_is_counted() -> None:
    plugins = plugins_with(Offers(), installed=False)
    loaded: Any = plugins.tool_parsers.load("doubling")
    parser = ContainedParser(loaded(ParserContext()), loaded)
    with pytest.raises(ValueError, match="broken"):
        parser.feed("bad")
    parser.close()
    [usage] = plugins.usage.used()
    assert (usage.calls, usage.errors) == (1, 1)


def test_a_part_has_one_meter() -> None:
    meters = UsageMeters()
    meters.meter("p", "routes", "p").add(1, 0.5, bytes_in=3)
    meters.meter("p", "routes", "p").add(1, 0.5, bytes_out=4)
    [usage] = meters.used()
    assert (usage.calls, usage.seconds, usage.bytes_in, usage.bytes_out) == (2, 1.0, 3, 4)
