"""Parsers of other formats than JSON: calls, text that is not a call, and the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.parsed_calls import parse_calls

from fllm import ParserContext, Tool
from fllm.parsing.tool_call_parser import ToolCallParser
from fllm.testing import ToolParserContract
from fllm_parsers.tools.dsml import DeepSeekV4Parser, DeepSeekV32Parser, DeepSeekV41Parser, GigaChat35Parser
from fllm_parsers.tools.gemma4 import FunctionGemmaParser, Gemma4Parser
from fllm_parsers.tools.glm45 import Glm45Parser, Glm47Parser
from fllm_parsers.tools.hy_v3 import HyV3Parser, HyV4Parser
from fllm_parsers.tools.kimi_k3 import KimiK3Parser
from fllm_parsers.tools.minicpm5 import MiniCPM5Parser
from fllm_parsers.tools.minimax_m2 import MiniMaxM2Parser
from fllm_parsers.tools.minimax_m3 import MiniMaxM3Parser
from fllm_parsers.tools.muse_glimmer import MuseGlimmerParser
from fllm_parsers.tools.olmo3 import Olmo3Parser
from fllm_parsers.tools.openai import OpenAIParser
from fllm_parsers.tools.pythonic import Lfm2Parser, Llama4PythonicParser, PythonicParser
from fllm_parsers.tools.qwen3_coder import MiMoParser, Qwen3CoderParser, SeedOssParser
from fllm_parsers.tools.step3 import Step3Parser

WEATHER = Tool(
    "get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "alert": {"type": "object"}},
    },
)
NOW = Tool("now", parameters={"type": "object", "properties": {}})
TOOLS = (WEATHER, NOW)

TOKYO = ("get_weather", {"city": "Tokyo", "days": 3})
now: tuple[str, dict[str, Any]] = ("now", {})

HARMONY = (
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"Tokyo","days":3}'
)

DSML = """<｜DSML｜tool_calls>
<｜DSML｜invoke name="get_weather">
<｜DSML｜parameter name="city" string="true">Tokyo</｜DSML｜parameter>
<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>
</｜DSML｜invoke>
<｜DSML｜invoke name="now">

</｜DSML｜invoke>
</｜DSML｜tool_calls>"""

HY = """<tool_calls:opensource>
<tool_call:opensource>get_weather<tool_sep:opensource>
<arg_key:opensource>city</arg_key:opensource>
<arg_value:opensource>Tokyo</arg_value:opensource>
<arg_key:opensource>days</arg_key:opensource>
<arg_value:opensource>3</arg_value:opensource>
</tool_call:opensource>
<tool_call:opensource>now<tool_sep:opensource>
</tool_call:opensource>
</tool_calls:opensource>"""

M3 = "]<]minimax[>["

WRITTEN: dict[type[ToolCallParser], str] = {
    DeepSeekV32Parser: DSML.replace("tool_calls", "function_calls"),
    DeepSeekV4Parser: DSML,
    DeepSeekV41Parser: DSML.replace("tool_calls", "calls").replace("｜DSML｜", "｜DSML｜ "),
    FunctionGemmaParser: "<start_function_call>call:get_weather{city:<escape>Tokyo<escape>,days:3}"
    "<end_function_call><start_function_call>call:now{}<end_function_call>",
    GigaChat35Parser: DSML.replace("DSML", "GCML"),
    HyV3Parser: HY,
    HyV4Parser: HY.replace("<tool_sep:opensource>", "").replace("\n", "").replace(":opensource", ""),
    KimiK3Parser: "<|open|>tools<|sep|>"
    '<|open|>call tool="get_weather" index="1"<|sep|>'
    '<|open|>argument key="city" type="string"<|sep|>Tokyo<|close|>argument<|sep|>'
    '<|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|><|close|>call<|sep|>'
    '<|open|>call tool="now" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>',
    MiniCPM5Parser: '<function name="get_weather"><param name="city">Tokyo</param>'
    '<param name="days">3</param></function>\n<function name="now"></function>',
    MiniMaxM3Parser: f'{M3}<tool_call>\n{M3}<invoke name="get_weather">{M3}<city>Tokyo{M3}</city>{M3}<days>3'
    f'{M3}</days>{M3}</invoke>\n{M3}<invoke name="now">{M3}</invoke>\n{M3}</tool_call>',
    MuseGlimmerParser: """<atem:function_calls>
<atem:invoke name="get_weather">
<atem:parameter name="city">Tokyo</atem:parameter>
<atem:parameter name="days">3</atem:parameter>
</atem:invoke>
</atem:function_calls><atem:function_calls>
<atem:invoke name="now">
</atem:invoke>
</atem:function_calls>""",
    Gemma4Parser: '<|tool_call>call:get_weather{city:<|"|>Tokyo<|"|>,days:3}<tool_call|>'
    "<|tool_call>call:now{}<tool_call|>",
    Glm45Parser: """<tool_call>get_weather
<arg_key>city</arg_key>
<arg_value>Tokyo</arg_value>
<arg_key>days</arg_key>
<arg_value>3</arg_value>
</tool_call>
<tool_call>now
</tool_call>""",
    Glm47Parser: "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Tokyo</arg_value>"
    "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call><tool_call>now</tool_call>",
    Lfm2Parser: "<|tool_call_start|>[get_weather(city='Tokyo', days=3), now()]<|tool_call_end|>",
    Llama4PythonicParser: '<|python_start|>[get_weather(city="Tokyo", days=3), now()]<|python_end|>',
    MiMoParser: "<tool_call><function=get_weather><parameter=city>Tokyo</parameter>"
    "<parameter=days>3</parameter></function></tool_call><tool_call><function=now></function></tool_call>",
    MiniMaxM2Parser: """<minimax:tool_call>
<invoke name="get_weather">
<parameter name="city">Tokyo</parameter>
<parameter name="days">3</parameter>
</invoke>
<invoke name="now">
</invoke>
</minimax:tool_call>""",
    Olmo3Parser: "<function_calls>get_weather(city='Tokyo', days=3)\nnow()</function_calls>",
    OpenAIParser: HARMONY
    + "<|call|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}",
    PythonicParser: "[get_weather(city='Tokyo', days=3), now()]",
    Qwen3CoderParser: """<tool_call>
<function=get_weather>
<parameter=city>
Tokyo
</parameter>
<parameter=days>
3
</parameter>
</function>
</tool_call>
<tool_call>
<function=now>
</function>
</tool_call>""",
    SeedOssParser: """<seed:tool_call>
<function=get_weather>
<parameter=city>Tokyo</parameter>
<parameter=days>3</parameter>
</function>
</seed:tool_call><seed:tool_call>
<function=now>
</function>
</seed:tool_call>""",
    Step3Parser: "<｜tool_calls_begin｜>"
    '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="get_weather">'
    '<steptml:parameter name="city">Tokyo</steptml:parameter>'
    '<steptml:parameter name="days">3</steptml:parameter></steptml:invoke><｜tool_call_end｜>'
    '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="now"></steptml:invoke>'
    "<｜tool_call_end｜><｜tool_calls_end｜>",
}
"""A call with arguments and one without, as the templates of the models write them."""


def read(
    parser: type[ToolCallParser], *pieces: str, tools: tuple[Tool, ...] = TOOLS
) -> tuple[str, list[Any]]:
    """Return the text, and the calls with decoded arguments."""
    said, calls = parse_calls(parser, *pieces, tools=tools)
    return said, [(name, json.loads(arguments)) for name, arguments in calls]


@pytest.mark.parametrize(("parser", "text"), WRITTEN.items())
class TestEach:
    def test_what_the_model_writes_is_read(self, parser: type[ToolCallParser], text: str) -> None:
        assert read(parser, text) == ("", [TOKYO, now])
        assert read(parser, f"\n{text}\n") == ("", [TOKYO, now])

    def test_without_tools_the_same_calls_are_found(self, parser: type[ToolCallParser], text: str) -> None:
        said, calls = read(parser, text, tools=())
        assert (said, [name for name, _ in calls]) == ("", ["get_weather", "now"])

    def test_prose_around_calls_is_kept_word_for_word(self, parser: type[ToolCallParser], text: str) -> None:
        assert read(parser, f"I [1] see.\n\n{text}\n\nSo <b> it is") == (
            "I [1] see.\n\n\n\nSo <b> it is",
            [TOKYO, now],
        )

    def test_a_call_that_is_cut_off_has_its_arguments_up_to_there(
        self, parser: type[ToolCallParser], text: str
    ) -> None:
        whole = parse_calls(parser, text, tools=TOOLS)[1][0]
        for cut in range(1, text.index("3")):
            said, calls = parse_calls(parser, text[:cut], tools=TOOLS)
            if cut < text.index("Tokyo") + 2:
                assert said in (text[:cut], "")
                assert calls in ([], [(whole[0], calls[0][1])] if calls else [])
            else:
                assert (said, [name for name, _ in calls]) == ("", [whole[0]])
                assert calls[0][1].startswith(('{"city": "T', '{"city":"T'))
            assert not calls or whole[1].startswith(calls[0][1])

    def test_calls_without_an_end_do_not_hide_the_last(self, parser: type[ToolCallParser], text: str) -> None:
        cut = text[: text.index("Tokyo") + 2]
        said, calls = read(parser, f"{cut}\n{cut}\n{text}")
        if parser in (PythonicParser, Olmo3Parser):  # a string may hold brackets and tags
            assert calls[0][0] == "get_weather"
        else:
            assert (said, calls[2:]) == ("", [TOKYO, now])
            assert all(
                call in (("get_weather", {"city": "To"}), ("get_weather", {"city": "To\n"}))
                for call in calls[:2]
            )

    def test_the_law(self, parser: type[ToolCallParser], text: str) -> None:
        contract = law(parser, text)
        contract.test_one_character_at_a_time_gives_the_same_events()
        contract.test_any_division_gives_the_same_events()
        contract.test_events_are_well_formed_and_no_text_is_lost()
        contract.test_a_long_argument_arrives_as_it_is_written()


def law(parser_class: type[ToolCallParser], text: str) -> ToolParserContract:
    markers = (
        *parser_class.opening,
        *parser_class.closing,
        *parser_class.section_markers,
        *parser_class.inner_markers,
    )
    lines = text.replace("<", "\x00<").replace(">", ">\x00").split("\x00")

    class Law(ToolParserContract):
        parser = parser_class
        samples = (text, text[:-9], f"Hi {text}\n{text} there", f"{text[:30]}{text}")
        fragments = (*markers, *(marker[:-1] for marker in markers), *lines, *"[](){}=:,'\"", "f(a=", "f()")
        context = ParserContext(tools=TOOLS)
        max_examples = 60

    return Law()


ALL = "(the whole text)"
"""Marks a row in which no call is found."""

ROWS: dict[str, tuple[type[ToolCallParser], str, str, list[Any]]] = {
    "a list in prose": (PythonicParser, "I call [now()] now.", "I call  now.", [now]),
    "a list of unknown names in prose": (PythonicParser, "As [see(a=1)].", ALL, []),
    "an unknown name at the beginning": (PythonicParser, "[see(a=1)]", "", [("see", {"a": 1})]),
    "a list behind another": (PythonicParser, "[now()]\n[now()]", "", [now, now]),
    "brackets in brackets": (PythonicParser, "[[now()]]", "[]", [now]),
    "half a list": (PythonicParser, "[now(), x", "", [now]),
    "half a list of nobody's": (PythonicParser, "[later(), x", ALL, []),
    "a tag of Llama 3": (PythonicParser, "<|python_tag|>[now()]", "", [now]),
    "calls on lines, one broken": (Olmo3Parser, "<function_calls>now()\nnow(1)", "\nnow(1)", [now]),
    "calls with commas": (Olmo3Parser, "<function_calls>\nnow(),\nnow()\n</function_calls>", "", [now, now]),
    "no call between tags": (Olmo3Parser, "<function_calls></function_calls>", "", []),
    "no tags around": (Qwen3CoderParser, "<function=now></function>", "", [now]),
    "the tag around is not closed": (Qwen3CoderParser, "<tool_call><function=now></function>", "", [now]),
    "no tag for the function": (Qwen3CoderParser, "<tool_call>now</tool_call>", ALL, []),
    "an object in Python": (
        Qwen3CoderParser,
        "<function=get_weather><parameter=alert>\n{'wind': True}\n</parameter></function>",
        "",
        [("get_weather", {"alert": {"wind": True}})],
    ),
    "values word for word": (
        MiMoParser,
        "<function=get_weather><parameter=city>\nTokyo\n</parameter></function>",
        "",
        [("get_weather", {"city": "\nTokyo\n"})],
    ),
    "a name alone that is no tool": (Glm45Parser, "<tool_call>what</tool_call>", ALL, []),
    "an unknown tool with arguments": (
        Glm45Parser,
        "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
        "",
        [("f", {"a": 1})],
    ),
    "one of two tools is unknown": (
        MiniMaxM2Parser,
        '<minimax:tool_call><invoke name="f"></invoke><invoke name="now"></invoke></minimax:tool_call>',
        '<minimax:tool_call><invoke name="f"></invoke>',
        [now],
    ),
    "no markers around": (Step3Parser, '<steptml:invoke name="now"></steptml:invoke>', "", [now]),
    "another spelling of the beginning": (Gemma4Parser, "<|tool_call>: now {}<tool_call|>", "", [now]),
    "no beginning but the name": (Gemma4Parser, "<|tool_call>now{}<tool_call|>", "", [now]),
    "values within values": (
        Gemma4Parser,
        '<|tool_call>call:f{a:[{b:<|"|>x,}"\\<|"|>},[]],c:{},d:-1.5e3,e:null,}<tool_call|>',
        "",
        [("f", {"a": [{"b": 'x,}"\\'}, []], "c": {}, "d": -1500.0, "e": None})],
    ),
    "JSON in Gemma's braces": (
        Gemma4Parser,
        '<|tool_call>call:f{"a":"x\\n", <|"|>b c<|"|>: true}<tool_call|>',
        "",
        [("f", {"a": "x\n", "b c": True})],
    ),
    "words without quotes": (
        Gemma4Parser,
        "<|tool_call>call:get_weather{city:New York ,days:3,at:12:30}<tool_call|>",
        "",
        [("get_weather", {"city": "New York", "days": 3, "at": "12:30"})],
    ),
    "a number for a string": (
        Gemma4Parser,
        '<|tool_call>call:get_weather{city:00501,days:<|"|>3<|"|>}<tool_call|>',
        "",
        [("get_weather", {"city": "00501", "days": 3})],
    ),
    "a quote in a word": (Gemma4Parser, '<|tool_call>call:f{a:x"y"}', ALL, []),
    "a header without channel": (OpenAIParser, " to=functions.now<|message|>{}<|call|>", "", [now]),
    "the channel of reasoning": (
        OpenAIParser,
        "<|start|>assistant<|channel|>analysis to=functions.now code<|message|>{}<|end|>",
        "",
        [now],
    ),
    "a tool of the model's own": (
        OpenAIParser,
        "<|channel|>analysis to=python code<|message|>{}<|call|>",
        ALL,
        [],
    ),
    "another message before": (
        OpenAIParser,
        f"Let me see.{HARMONY}<|call|>",
        "Let me see.",
        [TOKYO],
    ),
}


@pytest.mark.parametrize(("parser", "text", "said", "calls"), ROWS.values(), ids=ROWS)
def test_what_is_read(parser: type[ToolCallParser], text: str, said: str, calls: list[Any]) -> None:
    expected = (text if said == ALL else said, calls)
    assert read(parser, text) == expected
    assert read(parser, *text) == expected


def test_brackets_of_prose_are_no_special_tokens() -> None:
    assert "[" not in {*PythonicParser.visible_tokens, *Llama4PythonicParser.visible_tokens}


@pytest.mark.parametrize("parser", [PythonicParser, Lfm2Parser, Olmo3Parser])
@pytest.mark.parametrize("city", ["a\\b", "\\\\", "C:\\x41\\new", "\\101", "\x07\x1f", "\\N{DIGIT ONE}"])
def test_escapes_are_read_wherever_the_text_is_divided(parser: type[ToolCallParser], city: str) -> None:
    declared = parser.tool_format
    assert declared
    text = f"{declared.before}get_weather(city={city!r}){declared.after}"
    _, calls = parse_calls(parser, *text, tools=TOOLS)
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [("get_weather", {"city": city})]
