"""Parsers of JSON between markers: each obeys its contract and reads its own format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations

import pytest
from msgspec import structs
from support.parsed_calls import parse_calls

from fllm import ParserContext, ToolStart
from fllm.parsing.tool_call_parser import ToolCallParser
from fllm.testing import ToolParserContract, parse
from fllm_parsers.tools.apertus import ApertusParser
from fllm_parsers.tools.cohere import CohereCommandParser
from fllm_parsers.tools.deepseek import DeepSeekV3Parser, DeepSeekV31Parser
from fllm_parsers.tools.gigachat3 import GigaChat3Parser
from fllm_parsers.tools.granite import GraniteParser
from fllm_parsers.tools.granite_20b_fc import Granite20bFcParser
from fllm_parsers.tools.hermes import HermesParser, LongCatParser
from fllm_parsers.tools.internlm import InternLM2Parser
from fllm_parsers.tools.kimi_k2 import KimiK2Parser
from fllm_parsers.tools.mistral import MistralParser
from fllm_parsers.tools.phi4_mini_json import Phi4MiniJsonParser
from fllm_parsers.tools.plamo3 import Plamo3Parser
from fllm_parsers.tools.tool_calls_list import MiniMaxM1Parser, ToolCallsListParser
from fllm_parsers.tools.xlam import XlamParser

PARSERS = (
    ApertusParser,
    CohereCommandParser,
    DeepSeekV31Parser,
    DeepSeekV3Parser,
    GigaChat3Parser,
    Granite20bFcParser,
    GraniteParser,
    HermesParser,
    InternLM2Parser,
    KimiK2Parser,
    LongCatParser,
    MiniMaxM1Parser,
    MistralParser,
    Phi4MiniJsonParser,
    Plamo3Parser,
    ToolCallsListParser,
    XlamParser,
)

TOKYO = ("get_weather", '{"city": "Tokyo </tool_call> ]}"}')
TIME = ("get-time", '{"zone":{"names":["서울",null,1e3]}}')
NOW = ("now", "{}")


class _Fenced(XlamParser):
    assert XlamParser.tool_format
    tool_format = structs.replace(XlamParser.tool_format, before="```json[", after="]```")


def written(parser: type[ToolCallParser], calls: Sequence[tuple[str, str]]) -> str:
    """The calls as the model's own template would write them."""
    f = parser.tool_format
    assert f
    return f.before + f.between.join(f"{f.begin}{n}{f.middle}{a}{f.end}" for n, a in calls) + f.after


@pytest.mark.parametrize("parser", PARSERS)
class TestEach:
    def test_any_number_of_calls_is_read(self, parser: type[ToolCallParser]) -> None:
        for count in (1, 2, 3):
            for calls in permutations((TOKYO, TIME, NOW), count):
                assert parse_calls(parser, written(parser, calls)) == ("", list(calls))

    def test_prose_around_calls_is_kept_word_for_word(self, parser: type[ToolCallParser]) -> None:
        if parser is XlamParser:  # its lists have no marker: they are all there is, or stand in a code block
            parser = _Fenced
        text = f"Let me see.\n\n{written(parser, [TOKYO])}\n\nThat [is] it; {{ok}}."
        assert parse_calls(parser, text) == ("Let me see.\n\n\n\nThat [is] it; {ok}.", [TOKYO])

    def test_white_space_around_calls_alone_is_dropped(self, parser: type[ToolCallParser]) -> None:
        assert parse_calls(parser, f" \n{written(parser, [TOKYO, NOW])}\n ") == ("", [TOKYO, NOW])

    def test_a_call_that_is_cut_off_has_its_arguments_up_to_there(self, parser: type[ToolCallParser]) -> None:
        whole = written(parser, [TOKYO])
        begin = whole.index(TOKYO[1])
        for cut in range(1, begin + len(TOKYO[1])):
            text, calls = parse_calls(parser, whole[:cut])
            if parser is XlamParser:  # without a marker, it may be text until it is complete
                assert (text, calls) == (whole[:cut], [])
            elif cut <= begin:
                assert (text, calls) in ((whole[:cut], []), ("", []))
            else:
                assert (text, calls) == ("", [(TOKYO[0], whole[begin:cut])])

    def test_a_value_that_breaks_off_ends_its_call(self, parser: type[ToolCallParser]) -> None:
        broken = written(parser, [("f", '{"a": [1, "x", ?')])
        text, calls = parse_calls(parser, f"{broken}\n{written(parser, [NOW])}")
        if parser is XlamParser:
            assert (calls, broken in text) == ([], True)
        else:
            assert calls == [("f", '{"a": [1, "x"]}'), NOW]
            assert text.lstrip(", ").startswith("?")

    def test_line_breaks_within_strings_are_escaped(self, parser: type[ToolCallParser]) -> None:
        text = written(parser, [("f", '{"a": "two\nli\ttres"}')])
        assert parse_calls(parser, text) == ("", [("f", '{"a": "two\\nli\\ttres"}')])

    def test_a_string_without_an_end_does_not_hide_the_next_call(self, parser: type[ToolCallParser]) -> None:
        cut = written(parser, [("f", '{"a": "two')]).split("two")[0] + "two"
        text, calls = parse_calls(parser, f"{cut}\n{written(parser, [NOW])}")
        if parser is not XlamParser:
            assert (text, calls) == ("", [("f", '{"a": "two\\n"}'), NOW])

    def test_a_broken_call_does_not_lose_the_next(self, parser: type[ToolCallParser]) -> None:
        broken = written(parser, [("f", '{"a" 1}')])
        text, calls = parse_calls(parser, f"{broken}\n{written(parser, [NOW])}")
        assert calls == ([] if parser is XlamParser else [NOW])
        assert '{"a" 1}' in text

    def test_arguments_that_are_no_object_make_no_call(self, parser: type[ToolCallParser]) -> None:
        for arguments in ('"Tokyo"', "[1]", "12"):
            text = written(parser, [("f", arguments)])
            assert parse_calls(parser, text) == (text, [])

    def test_markers_reach_the_parser_as_text(self, parser: type[ToolCallParser]) -> None:
        markers = {*parser.opening, *parser.closing, *parser.section_markers, *parser.inner_markers}
        assert set(parser.visible_tokens) == markers

    def test_the_law(self, parser: type[ToolCallParser]) -> None:
        contract = _law(parser)
        contract.test_one_character_at_a_time_gives_the_same_events()
        contract.test_any_division_gives_the_same_events()
        contract.test_events_are_well_formed_and_no_text_is_lost()
        contract.test_a_long_argument_arrives_as_it_is_written()


def _law(parser_class: type[ToolCallParser]) -> ToolParserContract:
    whole = written(parser_class, [TOKYO, NOW])
    ignored_section = parser_class.ignored_section or ()
    markers = (
        *parser_class.opening,
        *parser_class.closing,
        *parser_class.section_markers,
        *parser_class.inner_markers,
    )

    class Law(ToolParserContract):
        parser = parser_class
        samples = (whole, whole[:-9], f"Hi {whole}\n{whole} there", f"{whole[:20]}{whole}")
        fragments = (
            *markers,
            *ignored_section,
            *(marker[:-2] for marker in markers),
            "{",
            "}",
            "[",
            "]",
            '"',
            ",",
            "`",
        )
        max_examples = 60

    return Law()


MISTRAL = {
    "a name before the arguments": ('[TOOL_CALLS]add{"a": 1}', [("add", '{"a": 1}')]),
    "a marker between": ('[TOOL_CALLS]add[ARGS]{"a": 1}', [("add", '{"a": 1}')]),
    "an id": ("[TOOL_CALLS]add[CALL_ID]X1y2z3A4b[ARGS]{}", [("add", "{}")]),
    "several": (
        '[TOOL_CALLS]a{}[TOOL_CALLS]b{"x": "[TOOL_CALLS]"}',
        [("a", "{}"), ("b", '{"x": "[TOOL_CALLS]"}')],
    ),
    "arguments first": ('[TOOL_CALLS] [{"arguments": {}, "name": "a"}]', [("a", "{}")]),
}


@pytest.mark.parametrize(("text", "calls"), MISTRAL.values(), ids=MISTRAL)
def test_mistral_reads_both_of_its_formats(text: str, calls: list[tuple[str, str]]) -> None:
    assert parse_calls(MistralParser, text) == ("", calls)


def test_a_long_head_is_no_call() -> None:
    text = f"[TOOL_CALLS]{'a' * 300}{{}}"
    assert parse_calls(MistralParser, text) == (text, [])


def test_granite_without_its_marker_needs_a_list_at_the_beginning() -> None:
    call = json.dumps([{"name": "f", "arguments": {}}])
    assert parse_calls(GraniteParser, call) == ("", [("f", "{}")])
    assert parse_calls(GraniteParser, f"See {call}") == (f"See {call}", [])


@pytest.mark.parametrize("parser", [MiniMaxM1Parser, XlamParser])
def test_what_is_planned_in_thought_is_no_call(parser: type[ToolCallParser]) -> None:
    thought = f"<think>perhaps {written(parser, [TIME])}</think>"
    assert parse_calls(parser, thought + written(parser, [NOW])) == (thought, [NOW])


def test_kimi_takes_the_name_from_the_id() -> None:
    begin, sep, end = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
    text = f'{begin} get.x:0 {sep} {{"a": 1}} {end} {begin}functions.y:1{sep}{{}}{end}'
    assert parse_calls(KimiK2Parser, text) == ("", [("get.x", '{"a": 1}'), ("y", "{}")])


@pytest.mark.parametrize("fence", ["```json", "```"])
def test_deepseek_reads_what_is_in_the_code_block(fence: str) -> None:
    text = f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n{fence}\n{{}}\n```<｜tool▁call▁end｜>"
    assert parse_calls(DeepSeekV3Parser, text) == ("", [("f", "{}")])


def ids(parser: type[ToolCallParser], text: str) -> list[str | None]:
    return [event.id for event in parse(parser(ParserContext()), [text]) if isinstance(event, ToolStart)]


def test_ids_of_the_model_are_kept() -> None:
    assert ids(KimiK2Parser, written(KimiK2Parser, [NOW])) == ["functions.now:0"]
    assert ids(MistralParser, "[TOOL_CALLS]add[CALL_ID]X1y2z3A4b[ARGS]{}[TOOL_CALLS]add{}") == [
        "X1y2z3A4b",
        None,
    ]


def test_mistral_takes_ids_of_nine_letters_and_digits() -> None:
    made = {MistralParser.new_call_id() for _ in range(9)}
    assert len(made) == 9
    assert all(len(each) == 9 and each.isalnum() for each in made)
