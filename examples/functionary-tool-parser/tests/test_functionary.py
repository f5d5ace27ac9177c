"""The parser, as the server uses it."""

from __future__ import annotations

from fllm_functionary import plugin
from fllm_functionary.parser import FunctionaryParser

from fllm import ParserContext, ParserEvent, Text, ToolArguments, ToolStart
from fllm.testing import ModelTraits, ToolParserContract, detect, parse, plugins_with

WEATHER = '<function=get_weather>{"city": "Seoul"}</function>'
NOW = "<function=now>{}</function>"


class TestContract(ToolParserContract):
    parser = FunctionaryParser
    samples = (
        WEATHER,
        f"I look it up.\n{WEATHER}\n{NOW}\nThere it is.",
        '<function=f>{"text": "</function>{<function=g>"} </function> <function=g>{}',
        '<function=f>\n{"a": [1, {"b": "\\""}]}\n</function>',
        "5 < 6, and <b>bold</b> {not json}",
        '<function=>{"a": 1}</function>',
    )
    fragments = ("<function=", "<funct", ">", "{", "}", "</function>", "</func", '"', "{}")


def events(*pieces: str) -> list[ParserEvent]:
    return parse(FunctionaryParser(ParserContext()), pieces)


def test_calls_are_numbered_and_separators_are_dropped() -> None:
    assert events(f"{WEATHER}\n{NOW}\n") == [
        ToolStart(0, "get_weather"),
        ToolArguments(0, '{"city": "Seoul"}'),
        ToolStart(1, "now"),
        ToolArguments(1, "{}"),
    ]


def test_text_around_calls_is_kept_word_for_word() -> None:
    texts = [event.text for event in events(f"First.\n{NOW}\nThen.") if isinstance(event, Text)]
    assert texts == ["First.\n", "\nThen."]


def test_text_streams_before_a_call_is_certain() -> None:
    parser = FunctionaryParser(ParserContext())
    assert parser.feed("Let me see <func") == [Text("Let me see ")]
    assert parser.feed("tion") == []
    assert parser.feed("al programming") == [Text("<functional programming")]


def test_a_call_needs_no_closing_tag() -> None:
    assert events('<function=f>{"a": 1}') == [ToolStart(0, "f"), ToolArguments(0, '{"a": 1}')]


def test_a_call_that_is_cut_off_has_its_arguments_up_to_there() -> None:
    assert events('<function=f>{"a": 1') == [ToolStart(0, "f"), ToolArguments(0, '{"a": 1')]


def test_a_closing_tag_within_a_string_does_not_end_the_call() -> None:
    assert events('<function=f>{"a": "</function>"}</function>')[1:] == [
        ToolArguments(0, '{"a": "</function>"}')
    ]


def test_the_parser_reads_what_its_format_writes() -> None:
    form = FunctionaryParser.tool_format
    assert events(f'{form.begin}f{form.middle}{{"a": 1}}{form.end}')[0] == ToolStart(0, "f")


def test_auto_finds_it_by_how_a_template_describes_the_format() -> None:
    described = "<{start_tag}={function_name}>{parameters}{end_tag}\nstart_tag => `<function`\n"
    registry = plugins_with(plugin).tool_parsers
    assert detect(registry, ModelTraits(f"{described}end_tag => `</function>`", "".__eq__)) == [
        "functionary_v3_1"
    ]
    assert detect(registry, ModelTraits("<function=f><parameter=a>", "".__eq__)) != ["functionary_v3_1"]


def test_the_plugin_loads_and_offers_the_parser() -> None:
    registry = plugins_with(plugin, installed=False).tool_parsers
    assert registry.load("functionary_v3_1").factory is FunctionaryParser
