"""A parser reads the calls that its format forces, with arguments of the types of the schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.constraint_texts import texts
from support.parsed_calls import calls_of, text_of

from fllm import ParserContext, Tool
from fllm.constraints import Constraint
from fllm.parsing.tool_call_parser import ToolCallParser
from fllm.parsing.tool_parameters import Parameters, json_type
from fllm.testing import parse
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

PARSERS = (
    DeepSeekV32Parser,
    DeepSeekV4Parser,
    DeepSeekV41Parser,
    FunctionGemmaParser,
    Gemma4Parser,
    GigaChat35Parser,
    Glm45Parser,
    Glm47Parser,
    HyV3Parser,
    HyV4Parser,
    KimiK3Parser,
    Lfm2Parser,
    Llama4PythonicParser,
    MiMoParser,
    MiniCPM5Parser,
    MiniMaxM2Parser,
    MiniMaxM3Parser,
    MuseGlimmerParser,
    Olmo3Parser,
    OpenAIParser,
    PythonicParser,
    Qwen3CoderParser,
    SeedOssParser,
    Step3Parser,
)

SCHEMAS: dict[str, Any] = {
    "city": {"type": "string"},
    "unit": {"type": "string", "enum": ["C", "F", 'it\'s "K"']},
    "level": {"enum": [1, 2.5, "high", None, True]},
    "code": {"type": "string", "pattern": "^[0-9]+$"},
    "part": {"type": "string", "pattern": "ab|cd"},
    "brief": {"type": "string", "minLength": 1, "maxLength": 3},
    "day": {"type": "string", "format": "date"},
    "days": {"type": "integer"},
    "ratio": {"type": "number"},
    "exact": {"type": "boolean"},
    "nothing": {"type": "null"},
    "note": {"type": ["string", "null"]},
    "label": {"type": ["integer", "string"], "maxLength": 3},
    "hint": {"anyOf": [{"type": "string", "minLength": 2, "maxLength": 4}, {"type": "null"}]},
    "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    "where": {"$ref": "#/$defs/Place"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "rows": {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}},
}
LONGEST = {"brief": 3, "label": 3, "hint": 4}
PLACE = {"type": "object", "properties": {"name": {"type": "string"}, "at": {"type": ["number", "null"]}}}


@st.composite
def tools(draw: st.DrawFn) -> Tool:
    keys = draw(st.lists(st.sampled_from(sorted(SCHEMAS)), unique=True, max_size=5))
    required = [key for key in keys if draw(st.booleans())]
    schema = {"properties": {key: SCHEMAS[key] for key in keys}, "required": required}
    name = draw(st.sampled_from(["get_weather", "f", "get-time", "ns.call2"]))
    return Tool(name, parameters={"type": "object", **schema, "$defs": {"Place": PLACE}})


@pytest.mark.parametrize("parser", PARSERS)
def test_forced_calls_are_read(parser: type[ToolCallParser]) -> None:
    @settings(deadline=None, max_examples=30)
    @given(tools(), st.data())
    def law(tool: Tool, data: st.DataObject) -> None:
        assert parser.tool_format
        text = data.draw(texts(parser.tool_format.calls([tool], max_calls=2)))
        assume(not any(text.count(opening) > 2 for opening in parser.opening if len(opening) > 1))
        events = parse(parser(ParserContext(tools=(tool,))), [text])
        assert text_of(events) == ""
        calls = calls_of(events)
        assert [name for name, _ in calls] == [tool.name] * len(calls)
        assert calls
        for _, arguments in calls:
            check(json.loads(arguments), Parameters(tool.parameters))

    law()


def check(arguments: dict[str, Any], parameters: Parameters) -> None:
    assert arguments.keys() >= {*parameters.required}
    for key, value in arguments.items():
        types = parameters.types(parameters.schemas[key])
        assert json_type(value) in types or (json_type(value), "number") == ("integer", *types & {"number"})
        assert not isinstance(value, str) or len(value) <= LONGEST.get(key, len(value))
        choices = parameters.schemas[key].get("enum", [value])
        assert value in choices


@pytest.mark.parametrize("parser", PARSERS)
def test_a_tool_that_says_nothing_may_be_given_anything(parser: type[ToolCallParser]) -> None:
    @settings(deadline=None, max_examples=10)
    @given(st.data())
    def law(data: st.DataObject) -> None:
        assert parser.tool_format
        tool = Tool("f", parameters={})
        events = parse(
            parser(ParserContext(tools=(tool,))), [data.draw(texts(parser.tool_format.calls([tool])))]
        )
        assert text_of(events) == ""
        assert all(isinstance(json.loads(arguments), dict) for _, arguments in calls_of(events))

    law()


@pytest.mark.parametrize("parser", [parser for parser in PARSERS if parser is not OpenAIParser])
def test_a_tool_without_parameters_is_given_none(parser: type[ToolCallParser]) -> None:
    @settings(max_examples=5)
    @given(texts(arguments_of(parser, Tool("f", parameters={"type": "object", "properties": {}}))))
    def law(text: str) -> None:
        assert text == ""

    law()


def arguments_of(parser: type[ToolCallParser], tool: Tool) -> Constraint:
    assert parser.tool_format
    return parser.tool_format.arguments(tool)
