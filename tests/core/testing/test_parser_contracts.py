"""The contracts of parsers reject what breaks them, and show the smallest text that does."""

from collections.abc import Callable, Iterable

import pytest

from fllm import ParserContext, ParserEvent, Reasoning, Text, ToolArguments, ToolStart
from fllm.testing import ReasoningParserContract, ToolParserContract, merge_events, parse, run_contract

DIVISION = "any division gives the same events"
SOUND = "events are well formed and no text is lost"


class Whole:
    """Holds everything back until the end; subclasses say what they make of it."""

    def __init__(self, context: ParserContext) -> None:
        self._text = ""

    def feed(self, text: str) -> Iterable[ParserEvent]:
        self._text += text
        return ()

    def finish(self) -> Iterable[ParserEvent]:
        return self.made(self._text)

    def made(self, text: str) -> Iterable[ParserEvent]:
        return [Text(text)]


class CallOrText(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        called = "[f]" in text
        return [ToolStart(0, "f"), ToolArguments(0, "{"), ToolArguments(0, "}")] if called else [Text(text)]


class Looking(CallOrText):
    """Breaks the law: it looks for a call within one piece only."""

    def feed(self, text: str) -> Iterable[ParserEvent]:
        return self.made(text)

    def finish(self) -> Iterable[ParserEvent]:
        return ()


class Losing(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        return [Text(text.strip())]


class Doubling(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        return [Text(text), Text(text)]


class Miscounting(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(1, "f"), ToolArguments(1, "{}")]


class BadArguments(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(0, "f"), ToolArguments(0, "{")]


class NoArguments(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(0, "f")]


class Reversed(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        return [ToolArguments(0, "{}"), ToolStart(0, "f")]


class Nameless(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        return [ToolStart(0, ""), ToolArguments(0, "{}")]


class Thinking(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        return [Reasoning(text)]


class Raising(Whole):
    def made(self, text: str) -> Iterable[ParserEvent]:
        if "[f]" in text:
            raise KeyError("f")
        return [Text(text)]


Contract = type[ToolParserContract | ReasoningParserContract]


def failures(contract: Contract, parser: Callable[..., object]) -> dict[str, str]:
    """What a contract says of a parser."""
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
        (ReasoningParserContract, Thinking),
    ],
)
def test_a_right_parser_passes(contract: Contract, parser: Callable[..., object]) -> None:
    assert failures(contract, parser) == {}


@pytest.mark.parametrize(
    ("parser", "message"),
    [
        (Losing, "there is no call, and the text is not the same"),
        (Doubling, "there is no call, and the text is not the same"),
        (Miscounting, "calls are numbered 0, 1, 2..."),
        (BadArguments, "the arguments '{' are no JSON"),
        (NoArguments, "the arguments '' are no JSON"),
        (Reversed, "arguments come before their call"),
        (Nameless, "a call has no name"),
        (Thinking, "a tool-call parser gave Reasoning"),
        (Raising, "the parser raised KeyError: 'f'"),
    ],
)
def test_a_wrong_tool_parser_fails_and_is_told_why(parser: type[Whole], message: str) -> None:
    assert message in failures(ToolParserContract, parser)[SOUND]


@pytest.mark.parametrize("parser", [Losing, Doubling])
def test_a_wrong_reasoning_parser_fails_and_is_told_why(parser: type[Whole]) -> None:
    found = failures(ReasoningParserContract, parser)[SOUND]
    assert "there is no marker, and the text is not the same" in found


def test_a_reasoning_parser_that_finds_calls_fails() -> None:
    assert "it gave more than Reasoning and Text" in failures(ReasoningParserContract, CallOrText)[SOUND]


@pytest.mark.parametrize("test", ["one character at a time gives the same events", DIVISION])
def test_a_broken_law_is_shown_with_the_smallest_text_and_division(test: str) -> None:
    head, text, whole, pieces, divided = failures(ToolParserContract, Looking)[test].splitlines()
    assert head == "the events depend on how the text is divided"
    assert text.split() == ["text", "'[f]'"]
    assert "ToolStart" in whole
    assert pieces in ("  pieces ['[', 'f]']", "  pieces ['[f', ']']")
    assert divided == "  give   [Text(text='[f]')]"


def test_a_parser_that_raises_is_shown_with_the_smallest_text() -> None:
    assert failures(ToolParserContract, Raising)[SOUND].splitlines()[1:] == ["  pieces ['[f]']"]


def test_a_parser_that_is_not_the_same_twice_fails() -> None:
    made: list[Whole] = []

    def moody(context: ParserContext) -> Whole:
        made.append(Whole(context) if len(made) % 3 else Losing(context))
        return made[-1]

    assert DIVISION in failures(ToolParserContract, moody)


def test_parse_gives_merged_events_of_all_pieces() -> None:
    assert parse(Whole(ParserContext()), ["a", "", "b"]) == [Text("ab")]
    assert merge_events([Text("a"), Text("b"), Reasoning("")]) == [Text("ab")]
