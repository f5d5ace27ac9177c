"""The work grows with the text, and not with its square, whatever the text is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from fuzz.subjects import Subject, subjects
from fuzz.texts import TOOLS
from fuzz.work import work_of

from fllm import ParserContext, ParserEvent, Text
from fllm.pipeline.stop_strings import StopStrings
from fllm.structured_output.tool_format import ToolFormat

SUBJECTS = subjects()
LENGTH = 1000
"""Above all limits of names, numbers and nesting, beyond which a reader gives up."""
PIECE = 50
STEEPEST = 4.5
"""Of four times the text; what begins and ends a text adds to it."""

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
    """A beginning, and what is repeated behind it: openings without an end, and almost-calls by turns."""
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


class _Slow:
    """A parser that looks again at all that came."""

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


def test_copies_of_what_is_held_are_counted() -> None:
    slow = partial(_Slow, "copies")
    assert work_of(slow, "x" * 800, 1) > 10 * work_of(slow, "x" * 200, 1)
