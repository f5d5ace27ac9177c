"""Optional abilities of parsers are checked when a parser is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from fllm import (
    Entry,
    HasToolFormat,
    HasVisibleTokens,
    MakesCallIds,
    ParserContext,
    PluginError,
    hookimpl,
)
from fllm.parsing import ToolFormat
from fllm.pipeline.contained_parser import ContainedParser
from fllm.plugins.registry import Registry
from fllm.plugins.validation import reasoning_parser, tool_parser
from fllm.testing import plugins_with


class Parser:
    def __init__(self, context: ParserContext) -> None: ...
    def feed(self, text: str) -> list[Any]:
        return []

    def finish(self) -> list[Any]:
        return []


class Able(Parser):
    visible_tokens = ("<call>",)
    tool_format = ToolFormat(begin="<call>", middle=" ", end="</call>")

    @staticmethod
    def new_call_id() -> str:
        return "1"


class WrongTokens(Parser):
    visible_tokens = "<call>"


class OtherTokens(Parser):
    visible_tokens = (1,)


class WrongFormat(Parser):
    tool_format = "<call>"


class WrongIds(Parser):
    new_call_id = "1"


class WrongConstraint(Parser):
    constrain_output = "free"


class WrongLimit(Parser):
    limit_reasoning = 5


def test_a_parser_without_abilities_is_loaded() -> None:
    assert reasoning_parser(Parser).visible_tokens == ()
    made = tool_parser(Parser)
    assert (made.visible_tokens, made.tool_format, made.new_call_id) == ((), None, None)
    assert isinstance(made(ParserContext()), Parser)


def test_abilities_become_typed_fields() -> None:
    assert isinstance(Able, HasVisibleTokens)
    assert isinstance(Able, HasToolFormat)
    assert isinstance(Able, MakesCallIds)
    made = tool_parser(Able)
    assert (made.visible_tokens, made.tool_format) == (("<call>",), Able.tool_format)
    assert made.new_call_id is not None
    assert made.new_call_id() == "1"


@pytest.mark.parametrize(
    ("validate", "parser", "complaint"),
    [
        (tool_parser, WrongTokens, "visible_tokens must be a sequence of str, not '<call>'"),
        (reasoning_parser, OtherTokens, r"visible_tokens must be a sequence of str, not \(1,\)"),
        (tool_parser, WrongFormat, "tool_format must be a fllm.parsing.ToolFormat, not '<call>'"),
        (tool_parser, WrongIds, "new_call_id must be a static method"),
        (reasoning_parser, WrongConstraint, "constrain_output must be a method, not 'free'"),
        (reasoning_parser, WrongLimit, "limit_reasoning must be a method, not 5"),
    ],
)
def test_an_ability_of_the_wrong_type_is_an_error(validate: Any, parser: Any, complaint: str) -> None:
    with pytest.raises(PluginError, match=complaint):
        validate(parser)


def test_the_error_names_the_parser_and_its_distribution() -> None:
    parsers = Registry("tool-call parser", tool_parser)
    parsers.add(Entry("wrong", f"{__name__}:WrongIds"), plugin="acme", distribution="acme-parsers")
    with pytest.raises(PluginError, match=r"'wrong' of acme-parsers .*: new_call_id must be"):
        parsers.load("wrong")


class Failing(Parser):
    def feed(self, text: str) -> list[Any]:
        raise ValueError("broken")


class Offers:
    @hookimpl
    def fllm_tool_parsers(self) -> list[Entry]:
        return [Entry("failing", f"{__name__}:Failing")]


def test_an_error_at_run_time_names_the_plugin_and_is_kept_in_its_report() -> None:
    plugins = plugins_with(Offers(), installed=False)
    loaded = plugins.tool_parsers.load("failing")
    with pytest.raises(ValueError, match="broken") as caught:
        ContainedParser(loaded(ParserContext()), loaded).feed("text")
    title = f"the tool-call parser 'failing' of {plugins.reports[0].distribution} ({__name__}:Failing)"
    assert caught.value.__notes__ == [f"raised by {title}"]
    assert plugins.reports[0].error == f"{title} failed: ValueError: broken"
