"""The work of a parser grows linearly with the text, and the body of a call is scanned once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

import pytest
from fuzz.subjects import Subject, subjects
from fuzz.texts import TOOLS, written
from fuzz.work import work_of

from fllm import ParserContext, ParserEvent, Text, ToolStart
from fllm.parsing import JsonScanner, JsonWithHeaderScanner, ToolCallParser
from fllm.pipeline.stop_strings import StopStrings
from fllm.structured_output.tool_format import ToolFormat
from fllm.testing import plugins_with

SUBJECTS = subjects()
LENGTH = 1000
"""Above all limits of names, numbers and nesting, at which a scanner stops."""
PIECE = 50
STEEPEST = 4.5
"""Maximum ratio of the work for four times the text. The beginning and the end of a text add to it."""

DECLARED = [
    subject
    for subject in SUBJECTS
    if isinstance(subject.make, type) and issubclass(subject.make, ToolCallParser)
]
"""The parsers that find calls with a scanner of their bodies."""

ALMOST = ("{", "[", '"', "\\", " ", "\ud800", '{"a":"', "[f(a='", "<think>", "<tool_call>")


@pytest.mark.parametrize("subject", SUBJECTS, ids=[subject.title for subject in SUBJECTS])
def test_the_work_is_linear(subject: Subject) -> None:
    make = partial(subject.make, ParserContext(tools=TOOLS))
    steep = {}
    for before, unit in _adversarial(subject):
        repeated = max(1, LENGTH // len(unit))
        once, more = (work_of(make, before + unit * count, PIECE) for count in (repeated, 4 * repeated))
        if more > STEEPEST * once:
            steep[before, unit] = once, more
    assert not steep


def _adversarial(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield a beginning and a text to repeat after it: openings without an end, and almost calls."""
    markers = subject.markers or ("<think>", "</think>")
    yield from (("", unit) for unit in dict.fromkeys((*ALMOST, *markers)))
    yield from (("", markers[0] + unit) for unit in ('{"a":"', "f(a='", "x", "\n", markers[-1]))
    declared = getattr(subject.make, "tool_format", None)
    if isinstance(declared, ToolFormat):
        begun = f"{declared.before}{declared.begin}f{declared.middle}"
        yield from ((begun, unit) for unit in ("{", '{"a":', " ", "a", "\\", markers[0]))
        yield "", begun
        yield "", begun + "{}"
        yield "", begun + "{}" + declared.end + declared.between


@pytest.mark.parametrize(
    "stop",
    [
        ("ab" * 500 + "c",),
        tuple("a" * count + "b" for count in range(1, 40)),
        ("a" * 1500 + "b", "a" * 900 + "c"),
    ],
    ids=["one that nearly comes", "many that begin alike", "two long ones"],
)
@pytest.mark.parametrize("unit", ["a", "ab", "x"])
def test_stop_strings_look_at_each_character_once(stop: tuple[str, ...], unit: str) -> None:
    make = partial(StopStrings, stop)
    assert work_of(make, unit * 20_000, PIECE) <= STEEPEST * work_of(make, unit * 5000, PIECE)


@pytest.mark.parametrize("subject", DECLARED, ids=[subject.title for subject in DECLARED])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_body_is_scanned_once(subject: Subject, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = _count_scanned(subject, monkeypatch)
    for text in _calls(subject):
        scanned.clear()
        parser = subject.make(ParserContext(tools=TOOLS))
        events = [event for at in range(0, len(text), size) for event in parser.feed(text[at : at + size])]
        events += parser.finish()
        if any(isinstance(event, ToolStart) for event in events):
            assert 0 < sum(scanned) <= len(text)
            return
    pytest.fail("none of the texts is a call")


def _calls(subject: Subject) -> Iterator[str]:
    """Yield texts in the format that the parser declares; some of them are invalid."""
    make: Any = subject.make
    yield from (written(make.tool_format.calls(TOOLS[:1]), Random(seed)) for seed in range(50))


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_object_of_a_call_is_scanned_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hermes = Subject("tool", "hermes", plugins_with().tool_parsers.load("hermes").factory)
    scanned = _count_scanned(hermes, monkeypatch)
    body = '{"name": "f", "arguments": {"text": "' + "x" * 1000 + '"}}'
    text = f"<tool_call>{body}</tool_call>"
    parser = hermes.make(ParserContext())
    for start in range(0, len(text), size):
        parser.feed(text[start : start + size])
    assert sum(scanned) == len(body)


def _count_scanned(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each scanner of the subject's kind adds the number of characters it reads."""
    parser: Any = subject.make(ParserContext())
    scanner = parser.new_scanner()
    kind = JsonScanner if isinstance(scanner, JsonWithHeaderScanner) else type(scanner)
    feed, scanned = kind.feed, list[int]()

    def counting_feed(self: Any, text: str, start: int = 0) -> None:
        before = self.length
        feed(self, text, start)
        scanned.append(self.length - before)

    monkeypatch.setattr(kind, "feed", counting_feed)
    return scanned


class _Slow:
    """A parser that reads the whole text again with each piece."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._all = ""
        self._pieces: list[str] = []

    def feed(self, text: str) -> list[ParserEvent]:
        if self._how == "copies":
            self._all += text
        return []

    def finish(self) -> list[ParserEvent]:
        return [Text(self._all)]


def test_copies_of_held_text_are_counted() -> None:
    slow = partial(_Slow, "copies")
    assert work_of(slow, "x" * 800, 1) > 10 * work_of(slow, "x" * 200, 1)
