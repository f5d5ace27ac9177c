"""The contracts reject what breaks them."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace

import pytest

import fllm
from fllm import Entry, ParserContext, ParserEvent, PluginError, Reasoning, Text, ToolArguments, ToolStart
from fllm.testing import ReasoningParserContract, ToolParserContract, merged, parse, plugins_with


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


def run(contract: type[ToolParserContract | ReasoningParserContract], parser: Callable[..., object]) -> None:
    """Run a contract's tests on a parser, as pytest would."""
    attributes = {"parser": parser, "samples": ("a [f] b", " c "), "markers": ("[f]",), "examples": 30}
    case = type("Case", (contract,), attributes)()
    for name in [name for name in dir(case) if name.startswith("test_")]:
        getattr(case, name)()


def test_a_right_parser_passes() -> None:
    run(ToolParserContract, Whole)
    run(ToolParserContract, CallOrText)
    run(ReasoningParserContract, Whole)
    run(ReasoningParserContract, Thinking)


def test_a_plain_function_may_make_the_parser() -> None:
    run(ToolParserContract, lambda context: Whole(context))


@pytest.mark.parametrize(
    "parser",
    [Looking, Losing, Doubling, Miscounting, BadArguments, NoArguments, Reversed, Nameless, Thinking],
)
def test_a_wrong_tool_parser_fails(parser: type[Whole]) -> None:
    with pytest.raises((AssertionError, ValueError, ExceptionGroup)):
        run(ToolParserContract, parser)


@pytest.mark.parametrize("parser", [Losing, Doubling, CallOrText, Looking])
def test_a_wrong_reasoning_parser_fails(parser: type[Whole]) -> None:
    with pytest.raises((AssertionError, ExceptionGroup)):
        run(ReasoningParserContract, parser)


def test_parse_gives_merged_events_of_all_pieces() -> None:
    assert parse(Whole(ParserContext()), ["a", "", "b"]) == [Text("ab")]
    assert merged([Text("a"), Text("b"), Reasoning("")]) == [Text("ab")]


class Plugin:
    @fllm.hookimpl
    def fllm_tool_parsers(self) -> Iterable[Entry]:
        return [Entry("mine", f"{__name__}:Whole")]


def test_a_plugin_stands_beside_the_installed_ones_or_alone() -> None:
    assert {"mine", "llama3_json"} <= set(plugins_with(Plugin()).tool_parsers.names())
    assert plugins_with(Plugin(), installed=False).tool_parsers.names() == ["mine"]


def test_a_broken_plugin_is_an_error_and_not_left_out() -> None:
    with pytest.raises(PluginError, match="SimpleNamespace: it implements no hook"):
        plugins_with(SimpleNamespace())
