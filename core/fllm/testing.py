"""For the tests of a plugin: what every parser must satisfy, and a server's plugins with yours among them.

::

    from fllm.testing import ToolParserContract

    class TestMyParser(ToolParserContract):
        parser = MyParser
        samples = ('<call>{"name": "f"}</call>',)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st

from fllm.discovery import Candidate
from fllm.errors import PluginError
from fllm.events import ParserEvent, Reasoning, Text, ToolArguments, ToolStart, merged
from fllm.interfaces import Parser, ParserContext, ParserFactory
from fllm.plugins import Plugins, load_plugins

__all__ = ["ReasoningParserContract", "ToolParserContract", "merged", "parse", "plugins_with"]

UNICODE = ("é", "서울", "😀", "👩\u200d🚀", "\\ud83d\\ude00", "\u2028", "\x00")
"""What parsers trip over: several bytes, several code points, an escaped surrogate pair, odd white space."""


def parse(parser: Parser, pieces: Iterable[str]) -> list[ParserEvent]:
    """Everything that a parser makes of a text which comes in these pieces, merged."""
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merged([*events, *parser.finish()])


def plugins_with(*plugins: object, installed: bool = True) -> Plugins:
    """The plugins of a server that has these modules (or objects) too, or only these.

    Raises `PluginError` where one of them would be left out.
    """
    loaded = load_plugins() if installed else Plugins()
    for plugin in plugins:
        loaded.load(_candidate(plugin))
        if error := loaded.reports[-1].error:
            raise PluginError(f"{loaded.reports[-1].name}: {error}")
    return loaded


def _candidate(plugin: object) -> Candidate:
    name = getattr(plugin, "__name__", type(plugin).__name__)
    return Candidate(name, "fllm.testing", "", name, lambda: plugin)


class _ParserContract:
    """The law of parsers: however a text is divided, the merged events are the same."""

    parser: ClassVar[ParserFactory]
    samples: ClassVar[Sequence[str]]
    """Texts that show what the format can be; made-up texts are mixed from parts of them."""
    fragments: ClassVar[Sequence[str]] = ()
    """Further parts to mix: markers, separators, halves of them."""
    context: ClassVar[ParserContext] = ParserContext()
    examples: ClassVar[int] = 200
    """How many texts hypothesis makes up for each test."""

    def parse(self, *pieces: str) -> list[ParserEvent]:
        """What a new parser makes of these pieces."""
        return parse(type(self).parser(self.context), pieces)

    def texts(self) -> st.SearchStrategy[str]:
        """Samples, and texts mixed from their words, the fragments and characters of all kinds."""
        words = {word for sample in self.samples for word in sample.split(" ")}
        parts = sorted({*words, *self.samples, *self.fragments, *UNICODE, " ", "\n"})
        mixed = st.lists(st.sampled_from(parts) | st.text(max_size=3), max_size=12).map("".join)
        return st.sampled_from(sorted(self.samples)) | mixed

    def test_one_character_at_a_time_gives_the_same_events(self) -> None:
        for sample in self.samples:
            assert self.parse(*sample) == self.parse(sample), sample

    def test_any_division_gives_the_same_events(self) -> None:
        @settings(deadline=None, max_examples=self.examples)
        @given(self.texts(), st.data())
        def law(text: str, data: st.DataObject) -> None:
            cuts = data.draw(st.lists(st.integers(0, len(text))).map(sorted))
            pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            assert self.parse(*pieces) == self.parse(text)

        law()

    def test_events_are_well_formed_and_no_text_is_lost(self) -> None:
        @settings(deadline=None, max_examples=self.examples)
        @given(self.texts())
        def law(text: str) -> None:
            self.check(text, self.parse(text))

        law()

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Assert what must hold of the merged events of any text."""
        raise NotImplementedError


class ToolParserContract(_ParserContract):
    """Every tool-call parser passes this."""

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Calls are numbered and precede their arguments, which are JSON; without a call, all is text."""
        assert not any(isinstance(event, Reasoning) for event in events)
        starts = [event for event in events if isinstance(event, ToolStart)]
        assert [start.index for start in starts] == list(range(len(starts)))
        assert all(start.name for start in starts)
        arguments = ["" for _ in starts]
        begun = 0
        for event in events:
            begun += isinstance(event, ToolStart)
            if isinstance(event, ToolArguments):
                assert event.index < begun, "arguments before their call"
                arguments[event.index] += event.text
        for text_of_one in arguments:
            json.loads(text_of_one)
        if not starts:
            assert _said(events) == text


class ReasoningParserContract(_ParserContract):
    """Every reasoning parser passes this."""

    markers: ClassVar[Sequence[str]]
    """What divides reasoning and answer; a text without any of them comes out whole."""

    def texts(self) -> st.SearchStrategy[str]:
        """Texts with the markers among them."""
        return st.lists(super().texts() | st.sampled_from(self.markers), max_size=6).map("".join)

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Only reasoning and text; both together are the given text, if there is no marker in it."""
        assert all(isinstance(event, Reasoning | Text) for event in events)
        if not any(marker in text for marker in self.markers):
            assert _said(events) == text


def _said(events: Iterable[ParserEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning | Text))
