"""The parser contracts detect each violation, and show the smallest text that reproduces it."""

from collections.abc import Callable, Iterable

import pytest

from fllm import ParserContext, ParserEvent, Reasoning, Text, ToolArguments, ToolStart
from fllm.testing import ReasoningParserContract, ToolParserContract, merge_events, parse, run_contract

DIVISION = "any division gives the same events"
WELL_FORMED = "events are well formed and no text is lost"


class Whole:
    """Holds all text back until the end; subclasses define the events."""

    def __init__(self, context: ParserContext) -> None:
        self._text = ""

    def feed(self, text: str) -> Iterable[ParserEvent]:
        self._text += text
        return ()

    def finish(self) -> Iterable[ParserEvent]:
        return self.events(self._text)

    def events(self, text: str) -> Iterable[ParserEvent]:
        return [Text(text)]


class CallOrText(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        called = "[f]" in text
        return [ToolStart(0, "f"), ToolArguments(0, "{"), ToolArguments(0, "}")] if called else [Text(text)]


class WithinOnePiece(CallOrText):
    """Finds a call only within one piece."""

    def feed(self, text: str) -> Iterable[ParserEvent]:
        return self.events(text)

    def finish(self) -> Iterable[ParserEvent]:
        return ()


class StripsText(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        return [Text(text.strip())]


class DuplicatesText(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        return [Text(text), Text(text)]


class StartsAtOne(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(1, "f"), ToolArguments(1, "{}")]


class BadArguments(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(0, "f"), ToolArguments(0, "{]")]


class NoArguments(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(0, "f")]


class ArgumentsFirst(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        return [ToolArguments(0, "{}"), ToolStart(0, "f")]


class EmptyName(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(0, ""), ToolArguments(0, "{}")]


class ReturnsReasoning(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        return [Reasoning(text)]


class Raises(Whole):
    def events(self, text: str) -> Iterable[ParserEvent]:
        if "[f]" in text:
            raise KeyError("f")
        return [Text(text)]


Contract = type[ToolParserContract | ReasoningParserContract]


def failures(contract: Contract, parser: Callable[..., object]) -> dict[str, str]:
    """Return the error of each test of the contract that the parser fails."""
    attributes = {"parser": parser, "samples": ("a [f] b", " c "), "markers": ("[f]",), "max_examples": 60}
    case = type("Case", (contract,), attributes)
    return {result.test: str(result.error) for result in run_contract(case) if result.error}


@pytest.mark.parametrize(
    ("contract", "parser"),
    [
        (ToolParserContract, Whole),
        (ToolParserContract, CallOrText),
        (ToolParserContract, lambda context: Whole(context)),
        (ReasoningParserContract, Whole),
        (ReasoningParserContract, ReturnsReasoning),
    ],
)
def test_a_correct_parser_passes(contract: Contract, parser: Callable[..., object]) -> None:
    assert failures(contract, parser) == {}


@pytest.mark.parametrize(
    ("parser", "message"),
    [
        (StripsText, "without a call, the Text events must be exactly the given text"),
        (DuplicatesText, "without a call, the Text events must be exactly the given text"),
        (StartsAtOne, "calls must be numbered 0, 1, 2..., not [1]"),
        (BadArguments, "the arguments '{]' are not JSON"),
        (NoArguments, "the arguments '' are not JSON"),
        (ArgumentsFirst, "arguments come before their call"),
        (EmptyName, "a call has no name"),
        (ReturnsReasoning, "a tool-call parser must not return Reasoning"),
        (Raises, "the parser raised KeyError: 'f'"),
    ],
)
def test_an_incorrect_tool_parser_fails_with_a_reason(parser: type[Whole], message: str) -> None:
    assert message in failures(ToolParserContract, parser)[WELL_FORMED]


@pytest.mark.parametrize("parser", [StripsText, DuplicatesText])
def test_an_incorrect_reasoning_parser_fails_with_a_reason(parser: type[Whole]) -> None:
    found = failures(ReasoningParserContract, parser)[WELL_FORMED]
    assert "without a marker, the events must be exactly the given text" in found


def test_a_reasoning_parser_that_finds_calls_fails() -> None:
    assert (
        "a reasoning parser must return only Reasoning and Text"
        in failures(ReasoningParserContract, CallOrText)[WELL_FORMED]
    )


@pytest.mark.parametrize("test", ["one character at a time gives the same events", DIVISION])
def test_a_failure_shows_the_smallest_text_and_division(test: str) -> None:
    head, text, whole, pieces, divided = failures(ToolParserContract, WithinOnePiece)[test].splitlines()
    assert (
        head
        == "the events depend on how the text is divided; hold back text until no later text can change it"
    )
    assert text.split() == ["text", "'[f]'"]
    assert "ToolStart" in whole
    assert pieces in ("  pieces   ['[', 'f]']", "  pieces   ['[f', ']']")
    assert divided == "  received [Text(text='[f]')]"


def test_a_parser_that_raises_is_shown_with_the_smallest_text() -> None:
    assert failures(ToolParserContract, Raises)[WELL_FORMED].splitlines()[1:] == ["  pieces ['[f]']"]


def test_a_parser_that_is_not_deterministic_fails() -> None:
    parsers: list[Whole] = []

    def alternating(context: ParserContext) -> Whole:
        parsers.append(Whole(context) if len(parsers) % 3 else StripsText(context))
        return parsers[-1]

    assert DIVISION in failures(ToolParserContract, alternating)


def test_parse_gives_merged_events_of_all_pieces() -> None:
    assert parse(Whole(ParserContext()), ["a", "", "b"]) == [Text("ab")]
    assert merge_events([Text("a"), Text("b"), Reasoning("")]) == [Text("ab")]
