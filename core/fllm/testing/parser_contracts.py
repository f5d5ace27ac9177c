"""The contracts of parsers: any division of a text gives the same merged events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Protocol

from fllm.errors import format_error
from fllm.events import ParserEvent, Reasoning, Text, ToolArguments, ToolStart
from fllm.interfaces import Parser, ParserContext
from fllm.testing.parsing import parse
from fllm.testing.shrinking import smallest

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

UNICODE = ("é", "서울", "😀", "👩\u200d🚀", "\\ud83d\\ude00", "\u2028", "\x00")
"""Difficult characters: several bytes, several code points, an escaped surrogate pair, rare white space."""

Law = Callable[[list[str]], None]
"""Raises `AssertionError` if a parser breaks the law on these pieces."""


class Makes(Protocol):
    """A `ParserFactory` that type checkers do not take for a method of the contract."""

    def __call__(self, context: ParserContext, /) -> Parser: ...


class _ParserContract:
    """Searches for failing texts and divisions with hypothesis, and shows the smallest."""

    parser: ClassVar[Makes]
    samples: ClassVar[Sequence[str]]
    """Texts in the format; generated texts are mixed from parts of them."""
    fragments: ClassVar[Sequence[str]] = ()
    """Further parts to mix: markers, separators, halves of them."""
    context: ClassVar[ParserContext] = ParserContext()
    max_examples: ClassVar[int] = 200
    """Number of generated texts per test."""

    def parse(self, *pieces: str) -> list[ParserEvent]:
        """Return the merged events of a new parser for these pieces."""
        return parse(type(self).parser(self.context), pieces)

    def texts(self) -> SearchStrategy[str]:
        """Return samples, and texts mixed from parts of them, fragments and arbitrary characters."""
        from hypothesis import strategies as st

        words = {word for sample in self.samples for word in sample.split(" ")}
        parts = sorted({*words, *self.samples, *self.fragments, *UNICODE, " ", "\n"})
        mixed = st.lists(st.sampled_from(parts) | st.text(max_size=3), max_size=12).map("".join)
        return st.sampled_from(sorted(self.samples)) | mixed

    def test_one_character_at_a_time_gives_the_same_events(self) -> None:
        for sample in self.samples:
            _check_law(self._any_division, list(sample))

    def test_any_division_gives_the_same_events(self) -> None:
        from hypothesis import strategies as st

        def divided(text: str) -> SearchStrategy[list[str]]:
            cuts = st.lists(st.integers(0, len(text))).map(sorted)
            return cuts.map(lambda cuts: [text[a:b] for a, b in pairwise([0, *cuts, len(text)])])

        self._search(self._any_division, self.texts().flatmap(divided))

    def test_events_are_well_formed_and_no_text_is_lost(self) -> None:
        self._search(self._sound_events, self.texts().map(lambda text: [text]))

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Assert what must hold of the merged events of any text."""
        raise NotImplementedError

    def _any_division(self, pieces: list[str]) -> None:
        whole, divided = self._parsed("".join(pieces)), self._parsed(*pieces)
        if divided != whole:
            seen = {"text": "".join(pieces), "gives": whole, "pieces": pieces, "give": divided}
            raise AssertionError(_describe("the events depend on how the text is divided", seen))

    def _sound_events(self, pieces: list[str]) -> None:
        text = "".join(pieces)
        events = self._parsed(text)
        try:
            self.check(text, events)
        except (AssertionError, ValueError) as error:
            raise AssertionError(_describe(str(error), {"text": text, "gives": events})) from error

    def _parsed(self, *pieces: str) -> list[ParserEvent]:
        try:
            return self.parse(*pieces)
        except Exception as error:  # whatever it is, its author needs to see which pieces caused it
            raise AssertionError(
                _describe(f"the parser raised {format_error(error)}", {"pieces": [*pieces]})
            ) from error

    def _search(self, law: Law, cases: SearchStrategy[list[str]]) -> None:
        """Let hypothesis look for pieces that break the law."""
        from hypothesis import given, settings

        broken: list[list[str]] = []

        @settings(deadline=None, max_examples=self.max_examples, report_multiple_bugs=False)
        @given(cases)
        def search(pieces: list[str]) -> None:
            try:
                law(pieces)
            except AssertionError:
                broken.append(pieces)
                raise

        with suppress(AssertionError):
            search()
        if broken:
            _check_law(law, broken[-1])
            raise AssertionError(f"the parser broke the law once, and not again, on {broken[-1]!r}")


class ToolParserContract(_ParserContract):
    """Every tool-call parser passes this."""

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Assert that calls are numbered, arguments are JSON and follow them, and other text is kept."""
        assert not any(isinstance(event, Reasoning) for event in events), "a tool-call parser gave Reasoning"
        starts = [event for event in events if isinstance(event, ToolStart)]
        assert [start.index for start in starts] == list(range(len(starts))), "calls are numbered 0, 1, 2..."
        assert all(isinstance(start.name, str) and start.name for start in starts), "a call has no name"
        for arguments in _arguments(events, len(starts)):
            try:
                json.loads(arguments)
            except ValueError as error:
                raise AssertionError(f"the arguments {arguments!r} are no JSON: {error}") from error
        assert starts or _text(events) == text, "there is no call, and the text is not the same"


class ReasoningParserContract(_ParserContract):
    """Every reasoning parser passes this."""

    markers: ClassVar[Sequence[str]]
    """Markers between reasoning and content; a text without markers is kept completely."""

    def texts(self) -> SearchStrategy[str]:
        """Return texts mixed with the markers."""
        from hypothesis import strategies as st

        return st.lists(super().texts() | st.sampled_from(self.markers), max_size=6).map("".join)

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Assert that there is only reasoning and text, together the given text if it has no marker."""
        assert all(isinstance(event, Reasoning | Text) for event in events), (
            "it gave more than Reasoning and Text"
        )
        if not any(marker in text for marker in self.markers):
            assert _text(events) == text, "there is no marker, and the text is not the same"


def _check_law(law: Law, pieces: list[str]) -> None:
    """Raise for the smallest pieces that break the law, if these do."""

    def breaks(pieces: list[str]) -> bool:
        try:
            law(pieces)
        except AssertionError:
            return True
        return False

    if breaks(pieces):
        law(smallest(pieces, breaks))


def _arguments(events: Iterable[ParserEvent], calls: int) -> list[str]:
    """Return the JSON text of each call."""
    arguments = ["" for _ in range(calls)]
    begun = 0
    for event in events:
        begun += isinstance(event, ToolStart)
        if isinstance(event, ToolArguments):
            assert event.index < begun, "arguments come before their call"
            arguments[event.index] += event.text
    return arguments


def _text(events: Iterable[ParserEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning | Text))


def _describe(what: str, seen: Mapping[str, object]) -> str:
    width = max(map(len, seen))
    return "\n".join([what, *(f"  {name:{width}} {value!r}" for name, value in seen.items())])
