"""The contracts that every parser must pass, such as: the division of a text does not change the events."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from fllm.containment import mapped
from fllm.errors import format_error
from fllm.events import ParserEvent, Reasoning, Text, ToolArguments, ToolStart
from fllm.interfaces import HasToolFormat, Parser, ParserContext
from fllm.parsing.json_scanner import JsonScanner
from fllm.parsing.sample import ParserKind, ParserSample, read_samples
from fllm.parsing.tool_call_parser import ToolCallParser, is_whole_tag
from fllm.testing.argument_streaming import measure_streaming, write_calls
from fllm.testing.parsing import parse
from fllm.testing.shrinking import shrink

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

UNICODE = ("é", "서울", "😀", "👩\u200d🚀", "\\ud83d\\ude00", "\u2028", "\x00")
"""Text that often breaks parsers: several bytes or code points, escaped surrogates, odd white space."""

MAX_FIRST_EVENT = 0.05
"""Part of the text of a long call after which it must have begun."""
MAX_SILENCE = 64
"""Maximum number of characters of a long argument without an event."""

Property = Callable[[list[str]], None]
"""Raises `AssertionError` if a parser violates a property with these pieces of a text."""


class MakeParser(Protocol):
    """A `ParserFactory` as a protocol, so that type checkers do not bind the attribute as a method."""

    def __call__(self, context: ParserContext, /) -> Parser: ...


class _ParserContract:
    """Generates texts and divisions with hypothesis; a failure shows the smallest ones that reproduce it."""

    parser: ClassVar[MakeParser]
    """The parser class, or a function that takes a `ParserContext`."""
    samples: ClassVar[Sequence[str]] = ()
    """Texts in the format of the model, valid and malformed; generated texts are mixed from parts of them."""
    samples_file: ClassVar[str | Path | None] = None
    """File of lines of JSON with more samples, as ``serve --record`` writes it.

    Those of this kind of parser are used, and the parser must make the events that they record.
    """
    fragments: ClassVar[Sequence[str]] = ()
    """Further text to mix in: markers, separators, halves of them."""
    context: ClassVar[ParserContext] = ParserContext()
    """The context that each parser is created with."""
    max_examples: ClassVar[int] = 200
    """Number of texts that hypothesis generates for each test."""
    kind: ClassVar[ParserKind]
    """Kind of the samples of ``samples_file`` that are used."""

    def parse(self, *pieces: str) -> list[ParserEvent]:
        """Return the merged events of a new parser for these pieces."""
        return parse(type(self).parser(self.context), pieces)

    def texts(self) -> SearchStrategy[str]:
        """Return a strategy for texts: samples, and mixtures of their words, fragments and any characters."""
        from hypothesis import strategies as st

        samples = self.all_samples()
        words = {word for sample in samples for word in sample.split(" ")}
        parts = sorted({*words, *samples, *self.fragments, *UNICODE, " ", "\n"})
        mixed = st.lists(st.sampled_from(parts) | st.text(max_size=3), max_size=12).map("".join)
        return st.sampled_from(sorted(samples)) | mixed

    def all_samples(self) -> list[str]:
        """Return ``samples``, and the texts of ``samples_file``."""
        samples = list(dict.fromkeys([*self.samples, *(each.text for each in self.recorded_samples())]))
        assert samples, "there are no samples: declare `samples`, or `samples_file` with samples of this kind"
        return samples

    @classmethod
    def recorded_samples(cls) -> list[ParserSample]:
        """Return the samples of ``samples_file`` for this kind of parser."""
        if cls.samples_file is None:
            return []
        return [each for each in read_samples(cls.samples_file) if each.kind == cls.kind]

    def test_one_character_at_a_time_gives_the_same_events(self) -> None:
        for sample in self.all_samples():
            _assert_holds(self._is_division_invariant, list(sample))
        for recorded in self.recorded_samples():
            self._gives_recorded_events(recorded)

    def test_any_division_gives_the_same_events(self) -> None:
        from hypothesis import strategies as st

        def divided(text: str) -> SearchStrategy[list[str]]:
            cuts = st.lists(st.integers(0, len(text))).map(sorted)
            return cuts.map(lambda cuts: [text[a:b] for a, b in pairwise([0, *cuts, len(text)])])

        self._search(self._is_division_invariant, self.texts().flatmap(divided))

    def test_events_are_well_formed_and_no_text_is_lost(self) -> None:
        self._search(self._is_well_formed, self.texts().map(lambda text: [text]))

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Raise `AssertionError` if the merged events of this text are invalid."""
        raise NotImplementedError

    def _is_division_invariant(self, pieces: list[str]) -> None:
        text = "".join(pieces)
        expected, received = self._events(text), self._events(*pieces)
        if received != expected:
            details = {"text": text, "expected": expected, "pieces": pieces, "received": received}
            message = (
                "the events depend on how the text is divided; "
                "hold back text until no later text can change it"
            )
            raise AssertionError(_describe(message, details))

    def _gives_recorded_events(self, sample: ParserSample) -> None:
        events = parse(type(self).parser(sample.context(self.context.options)), sample.text)
        if sample.events is not None and events != [*sample.events]:
            details = {"text": sample.text, "recorded": [*sample.events], "received": events}
            raise AssertionError(_describe(f"a sample of {self.samples_file} gives other events", details))

    def _is_well_formed(self, pieces: list[str]) -> None:
        text = "".join(pieces)
        events = self._events(text)
        try:
            self.check(text, events)
        except (AssertionError, ValueError) as error:
            raise AssertionError(_describe(str(error), {"text": text, "received": events})) from error

    def _events(self, *pieces: str) -> list[ParserEvent]:
        def describe(error: BaseException) -> AssertionError:
            message = f"the parser raised {format_error(error)}; it must accept any text"
            return AssertionError(_describe(message, {"pieces": [*pieces]}))

        with mapped(describe):
            return self.parse(*pieces)

    def _search(self, prop: Property, cases: SearchStrategy[list[str]]) -> None:
        """Search for pieces that violate a property with hypothesis."""
        from hypothesis import given, settings

        failures: list[list[str]] = []

        @settings(deadline=None, max_examples=self.max_examples, report_multiple_bugs=False)
        @given(cases)
        def search(pieces: list[str]) -> None:
            try:
                prop(pieces)
            except AssertionError:
                failures.append(pieces)
                raise

        with suppress(AssertionError):
            search()
        if failures:
            _assert_holds(prop, failures[-1])
            raise AssertionError(
                "the parser is not deterministic: it failed once, but not again, "
                f"with the pieces {failures[-1]!r}"
            )


class ToolParserContract(_ParserContract):
    """Every tool-call parser passes this."""

    kind: ClassVar[ParserKind] = "tool-call"
    long_call: ClassVar[str] = ""
    """A call of ``write_file(path, content)`` with a long content. The default is in the parser's format."""
    streams_arguments: ClassVar[bool] = True
    """Whether the format allows to emit the arguments of a call before the call is complete."""

    def test_a_long_argument_arrives_as_it_is_written(self) -> None:
        declared = self.parser.tool_format if isinstance(self.parser, HasToolFormat) else None
        text = self.long_call or (write_calls(declared) if declared else "")
        if not text or not self.streams_arguments:
            return
        measured = measure_streaming(type(self).parser, text)
        assert measured.first_event <= MAX_FIRST_EVENT, (
            f"a call of {len(text)} characters begins after {measured.first_event:.0%} of its text; "
            "emit ToolStart as soon as the name is certain"
        )
        assert measured.longest_silence <= MAX_SILENCE, (
            f"no event for {measured.longest_silence} characters of a call; emit arguments as they arrive"
        )

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Require numbered and named calls with JSON arguments; without a call, the unchanged text."""
        assert not any(isinstance(event, Reasoning) for event in events), (
            "a tool-call parser must not return Reasoning"
        )
        starts = [event for event in events if isinstance(event, ToolStart)]
        indices = [start.index for start in starts]
        assert indices == list(range(len(starts))), f"calls must be numbered 0, 1, 2..., not {indices}"
        assert all(isinstance(start.name, str) and start.name for start in starts), (
            "a call has no name; ToolStart.name must be a non-empty string"
        )
        *whole, last = _arguments(events, len(starts)) or [""]
        for arguments in whole:
            try:
                json.loads(arguments)
            except ValueError as error:
                raise AssertionError(
                    f"the arguments {arguments!r} are not JSON: {error}; a call without arguments has '{{}}'"
                ) from error
        assert not starts or is_beginning_of_json(last), (
            f"the arguments {last!r} are not JSON, nor the beginning of it, as in a call that is cut off; "
            "a call without arguments has '{}'"
        )
        shown = _text(events)
        assert starts or shown == text or may_drop(type(self).parser, text, shown), (
            "without a call, the Text events must be exactly the given text"
        )


class ReasoningParserContract(_ParserContract):
    """Every reasoning parser passes this."""

    kind: ClassVar[ParserKind] = "reasoning"
    markers: ClassVar[Sequence[str]]
    """Text that separates reasoning from content. A text without any marker must be returned unchanged."""

    def texts(self) -> SearchStrategy[str]:
        """Return a strategy for texts that contain the markers."""
        from hypothesis import strategies as st

        return st.lists(super().texts() | st.sampled_from(self.markers), max_size=6).map("".join)

    def check(self, text: str, events: list[ParserEvent]) -> None:
        """Require only reasoning and text; without a marker, together the unchanged text."""
        assert all(isinstance(event, Reasoning | Text) for event in events), (
            "a reasoning parser must return only Reasoning and Text"
        )
        if not any(marker in text for marker in self.markers):
            assert _text(events) == text, "without a marker, the events must be exactly the given text"


def _assert_holds(prop: Property, pieces: list[str]) -> None:
    """Raise `AssertionError` for the smallest pieces that violate the property, if these do."""

    def violates(pieces: list[str]) -> bool:
        try:
            prop(pieces)
        except AssertionError:
            return True
        return False

    if violates(pieces):
        prop(shrink(pieces, violates))


def _arguments(events: Iterable[ParserEvent], calls: int) -> list[str]:
    """Return the JSON text of each call."""
    arguments = ["" for _ in range(calls)]
    started = 0
    for event in events:
        started += isinstance(event, ToolStart)
        if isinstance(event, ToolArguments):
            assert event.index < started, (
                f"arguments come before their call: return ToolStart({event.index}, ...) before {event}"
            )
            arguments[event.index] += event.text
    return arguments


def may_drop(parser: MakeParser, text: str, shown: str) -> bool:
    """Return whether a text without a call holds an empty call, or ends with the beginning of a call."""
    left = text.removeprefix(shown).lstrip()
    declared = parser.tool_format if isinstance(parser, HasToolFormat) else None
    if declared and _begins_object(declared.before + declared.begin) and _begins_object(left):
        return True
    if not (isinstance(parser, type) and issubclass(parser, ToolCallParser)):
        return False
    openings = (*parser.opening, *parser.section_markers)
    pairs = product(filter(is_whole_tag, openings), parser.closing)
    between = rf"[\s\]{re.escape(parser.skip_before)}]*"
    empty = "|".join(re.escape(first) + between + re.escape(last) for first, last in pairs)
    return left.startswith(openings) or bool(empty and re.search(empty, text))


def _begins_object(text: str) -> bool:
    return re.match(r'[\s\[]*+\{\s*+"', text) is not None


def is_beginning_of_json(text: str) -> bool:
    """Return whether the text is JSON, or could be if it went on."""
    scanner = JsonScanner()
    member = f'{{"":{text}'
    scanner.feed(member)
    with suppress(ValueError):
        json.loads(text)
        return True
    return bool(text) and scanner.state == "open"


def _text(events: Iterable[ParserEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning | Text))


def _describe(message: str, details: Mapping[str, object]) -> str:
    width = max(map(len, details))
    return "\n".join([message, *(f"  {name:{width}} {value!r}" for name, value in details.items())])
