"""Formats whose tags say the types of arguments, or hold special tokens: DSML, Kimi K3, MiniMax M3."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.parsed_calls import parse_calls

from fllm import Tool
from fllm.parsing.tool_call_parser import ToolCallParser
from fllm_parsers.tools.dsml import DeepSeekV4Parser, DeepSeekV41Parser
from fllm_parsers.tools.hy_v3 import HyV3Parser
from fllm_parsers.tools.kimi_k3 import KimiK3Parser
from fllm_parsers.tools.minicpm5 import MiniCPM5Parser
from fllm_parsers.tools.minimax_m3 import TOKEN, MiniMaxM3Parser

PLACE = {"type": "object", "properties": {"name": {"type": "string"}, "row": {"type": "integer"}}}
TOOL = Tool(
    "go",
    parameters={
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer"},
            "either": {"type": ["string", "integer", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "where": {"$ref": "#/$defs/Place"},
            "places": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Place"}}, {"type": "null"}]},
            "free": {"type": "object"},
            "any": {},
        },
        "$defs": {"Place": PLACE},
    },
)


def dsml(key: str, value: str, mark: str) -> str:
    argument = f'<｜DSML｜parameter name="{key}"{mark}>{value}</｜DSML｜parameter>'
    call = f'<｜DSML｜invoke name="go">\n{argument}\n</｜DSML｜invoke>'
    return f"<｜DSML｜tool_calls>\n{call}\n</｜DSML｜tool_calls>"


def k3(key: str, value: str, type_: str) -> str:
    argument = f'<|open|>argument key="{key}" type="{type_}"<|sep|>{value}<|close|>argument<|sep|>'
    call = f'<|open|>call tool="go" index="1"<|sep|>{argument}<|close|>call<|sep|>'
    return f"<|open|>tools<|sep|>{call}<|close|>tools<|sep|>"


def m3(arguments: str) -> str:
    return f'{TOKEN}<tool_call>\n{TOKEN}<invoke name="go">{arguments}{TOKEN}</invoke>\n{TOKEN}</tool_call>'


def tag(key: str, value: str) -> str:
    return f"{TOKEN}<{key}>{value}{TOKEN}</{key}>"


def read(parser: type[ToolCallParser], text: str, tools: tuple[Tool, ...] = (TOOL,)) -> tuple[str, list[Any]]:
    """Return the text, and the arguments of each call; the same whether the text is divided or not."""
    said, calls = parse_calls(parser, text, tools=tools)
    assert parse_calls(parser, *text, tools=tools) == (said, calls)
    return said, [json.loads(arguments) for _, arguments in calls]


STRING, OTHER = ' string="true"', ' string="false"'


@pytest.mark.parametrize(
    ("key", "value", "mark", "expected"),
    [
        ("text", "5", STRING, "5"),
        ("text", "5", OTHER, "5"),
        ("text", "null", OTHER, "null"),
        ("count", "5", OTHER, 5),
        ("count", "5", STRING, 5),
        ("either", "5", STRING, "5"),
        ("either", "5", OTHER, 5),
        ("either", "null", OTHER, None),
        ("either", "five", OTHER, "five"),
        ("either", '"5"', OTHER, "5"),
        ("tags", '["a"]', OTHER, ["a"]),
        ("where", '{"row": "4"}', OTHER, {"row": 4}),
        ("unknown", "[1]", STRING, "[1]"),
        ("unknown", "[1]", OTHER, [1]),
        ("unknown", "true", "", True),
        ("text", "a <b> </c> & 'd'\n", STRING, "a <b> </c> & 'd'\n"),
        ("text", "", STRING, ""),
    ],
)
def test_the_mark_of_a_string_decides_where_the_schema_does_not(
    key: str, value: str, mark: str, expected: Any
) -> None:
    assert read(DeepSeekV4Parser, dsml(key, value, mark)) == ("", [{key: expected}])
    spaced = dsml(key, value, mark).replace("｜DSML｜", "｜DSML｜ ").replace("tool_calls", "calls")
    assert read(DeepSeekV41Parser, spaced) == ("", [{key: expected}])
    assert read(KimiK3Parser, k3(key, value, "string" if mark == STRING else "number")) == (
        "",
        [{key: expected}],
    )


def test_a_missing_end_of_a_call_or_an_argument_is_added() -> None:
    whole = dsml("text", "a", STRING)
    for missing in (
        "</｜DSML｜invoke>\n",
        "</｜DSML｜parameter>\n",
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n",
    ):
        assert read(DeepSeekV4Parser, f"{whole.replace(missing, '')} Done.") == (" Done.", [{"text": "a"}])
    assert read(KimiK3Parser, k3("text", "a", "string").replace("<|close|>call<|sep|>", "")) == (
        "",
        [{"text": "a"}],
    )


def test_attributes_without_an_end_do_not_begin_a_call() -> None:
    text = f'<|open|>tools<|sep|><|open|>call tool="go" {"x" * 300}<|sep|>'
    assert parse_calls(KimiK3Parser, text, tools=(TOOL,)) == (text, [])


def test_the_tags_of_an_answer_are_dropped() -> None:
    text = "<|open|>response<|sep|>Let me see.<|close|>response<|sep|>"
    assert read(KimiK3Parser, text + k3("count", "1", "number") + "<|close|>message<|sep|>") == (
        "Let me see.",
        [{"count": 1}],
    )
    assert read(KimiK3Parser, "All done.<|close|>response<|sep|><|close|>message<|sep|>") == ("All done.", [])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (tag("text", "a <b> c"), {"text": "a <b> c"}),
        (tag("count", "3"), {"count": 3}),
        (tag("tags", tag("item", "a") + tag("item", "b")), {"tags": ["a", "b"]}),
        (tag("tags", ""), {"tags": []}),
        (tag("tags", '["a"]'), {"tags": ["a"]}),
        (tag("where", tag("name", "5") + tag("row", "5")), {"where": {"name": "5", "row": 5}}),
        (tag("where", ""), {"where": {}}),
        (
            tag("places", tag("item", tag("row", "1")) + tag("item", tag("name", ""))),
            {"places": [{"row": 1}, {"name": ""}]},
        ),
        (tag("places", "null"), {"places": None}),
        (tag("free", tag("free", "x") + tag("n", "1")), {"free": {"free": "x", "n": "1"}}),
        (tag("free", tag("n", "1") + tag("n", "2")), {"free": {"n": ["1", "2"]}}),
        (tag("free", f"a{tag('n', '1')}b"), {"free": {"n": "1", "$text": "ab"}}),
        (tag("any", tag("item", "a")), {"any": ["a"]}),
        (tag("any", "a"), {"any": "a"}),
        (tag("text", "") + "\n" + tag("count", " 3 "), {"text": "", "count": 3}),
        ("", {}),
    ],
)
def test_nested_tags_become_what_the_schema_says(arguments: str, expected: Any) -> None:
    assert read(MiniMaxM3Parser, m3(arguments)) == ("", [expected])


def test_a_nested_call_that_is_cut_off_has_its_arguments_up_to_there() -> None:
    whole = m3(tag("text", "Milk") + tag("tags", tag("item", "a") + tag("item", "b")))
    for cut, expected in (
        ("Mi", '{"text": "Mi'),
        ("</text>", '{"text": "Milk"'),
        ("<item>a", '{"text": "Milk"'),
        ("</tags>", '{"text": "Milk", "tags": ["a", "b"]'),
    ):
        text = f"Noted.{whole[: whole.index(cut) + len(cut)]}"
        assert parse_calls(MiniMaxM3Parser, text, tools=(TOOL,)) == ("Noted.", [("go", expected)])


def test_a_value_in_a_cdata_section_may_have_tags() -> None:
    text = (
        '<function name="go"><param name="text"><![CDATA[a </param> </function> ]]></param>'
        '<param name="count">2</param></function>'
    )
    assert read(MiniCPM5Parser, text) == ("", [{"text": "a </param> </function> ", "count": 2}])
    cut = text[: text.index(" ]]>")]
    assert parse_calls(MiniCPM5Parser, cut, tools=(TOOL,)) == (
        "",
        [("go", '{"text": "a </param> </function>')],
    )


@pytest.mark.parametrize("suffix", ["", ":opensource", ":6124c78e"])
def test_tokens_may_have_the_suffix_of_a_checkpoint(suffix: str) -> None:
    text = (
        "<tool_calls>\n<tool_call>go<tool_sep>\n<arg_key>text</arg_key>\n<arg_value>5</arg_value>\n"
        "<arg_key>count</arg_key>\n<arg_value>5</arg_value>\n</tool_call>\n</tool_calls>"
    ).replace(">", f"{suffix}>")
    assert read(HyV3Parser, text) == ("", [{"text": "5", "count": 5}])
