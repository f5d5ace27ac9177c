"""Outputs of real models that other servers' users reported, and what they mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.parsed_calls import parse_calls

from fllm import Tool
from fllm.testing import plugins_with
from fllm_parsers import plugin

PARSERS = plugins_with(plugin, installed=False).tool_parsers

TEXT = {"type": "string"}
TOOLS = (
    Tool("save_note", parameters={"type": "object", "properties": {"title": TEXT, "body": TEXT}}),
    Tool("clock", parameters={"type": "object", "properties": {}}),
    Tool("pay", parameters={"type": "object", "properties": {"euros": {"type": "integer"}}}),
    Tool(
        "tag",
        parameters={
            "type": "object",
            "properties": {
                "labels": {"anyOf": [{"type": "array", "items": TEXT}, TEXT]},
                "where": {"type": ["string", "object"]},
                "zip": {"type": ["string", "array"]},
            },
        },
    ),
)

CUT = '{"title": "Milk", "body": "two li'

CUT_OFF: dict[str, tuple[str, str, str]] = {
    "JSON": ("hermes", f'<tool_call>\n{{"name": "save_note", "arguments": {CUT}', ""),
    "tags": (
        "qwen3_coder",
        "Noted.\n<tool_call>\n<function=save_note>\n<parameter=title>\nMilk\n</parameter>\n"
        "<parameter=body>\ntwo li",
        "Noted.\n",
    ),
    "a header": (
        "kimi_k2",
        "Noted.<|tool_calls_section_begin|><|tool_call_begin|>functions.save_note:0"
        f"<|tool_call_argument_begin|>{CUT}",
        "Noted.",
    ),
    "Python": ("pythonic", "[save_note(title='Milk', body='two li", ""),
    "without a marker": ("llama3_json", f'{{"name": "save_note", "parameters": {CUT}', ""),
    "within a closing tag": (
        "glm45",
        "<tool_call>save_note\n<arg_key>title</arg_key>\n<arg_value>Milk</arg_value>\n"
        "<arg_key>body</arg_key>\n<arg_value>two li</arg_",
        "",
    ),
    "within an escape": ("mistral", f"[TOOL_CALLS]save_note{CUT}", ""),
}


@pytest.mark.parametrize(("name", "text", "content"), CUT_OFF.values(), ids=CUT_OFF)
@pytest.mark.parametrize("whole", [True, False])
def test_a_call_that_is_cut_off_has_its_arguments_up_to_there(
    name: str, text: str, content: str, whole: bool
) -> None:
    pieces = [text] if whole else [*text]
    assert parse_calls(PARSERS.load(name), *pieces, tools=TOOLS) == (content, [("save_note", CUT)])


def note(body: str, title: str = "Milk") -> tuple[str, Any]:
    return "save_note", {"title": title, "body": body}


FIVE = ("pay", {"euros": 5})

ROWS: dict[str, tuple[str, str, str, list[tuple[str, Any]]]] = {
    "an empty call": ("qwen3_coder", "All done.<tool_call></tool_call> Bye.", "All done. Bye.", []),
    "an empty call in JSON": ("hermes", "All done.<tool_call>\n</tool_call> Bye.", "All done. Bye.", []),
    "the opening of a call within a value": (
        "qwen3_coder",
        "<tool_call>\n<function=save_note>\n<parameter=title>\nMilk\n</parameter>\n<parameter=body>\n"
        "Begin with <function=clock> and go on.\n</parameter>\n</function>\n</tool_call>",
        "",
        [note("Begin with <function=clock> and go on.")],
    ),
    "the opening tag within a value": (
        "glm45",
        "<tool_call>save_note\n<arg_key>title</arg_key>\n<arg_value>Milk</arg_value>\n<arg_key>body</arg_key>\n"
        "<arg_value>Begin with <tool_call> and go on.</arg_value>\n</tool_call>",
        "",
        [note("Begin with <tool_call> and go on.")],
    ),
    "the tags within a JSON string": (
        "hermes",
        '<tool_call>\n{"name": "save_note", "arguments": '
        '{"title": "Milk", "body": "a <tool_call> b </tool_call>"}}'
        "\n</tool_call>",
        "",
        [note("a <tool_call> b </tool_call>")],
    ),
    "JSON where a string is possible as well": (
        "qwen3_coder",
        '<tool_call>\n<function=tag>\n<parameter=labels>\n["red", "blue"]\n</parameter>\n'
        '<parameter=where>\n{"row": 4}\n</parameter>\n'
        "<parameter=zip>\n12345\n</parameter>\n</function>\n</tool_call>",
        "",
        [("tag", {"labels": ["red", "blue"], "where": {"row": 4}, "zip": "12345"})],
    ),
    "no arguments at all": (
        "openai",
        "<|channel|>commentary to=functions.clock <|constrain|>json<|message|><|call|>",
        "",
        [("clock", {})],
    ),
    "spaces around the markers": (
        "mistral",
        '[TOOL_CALLS] save_note [ARGS] {"title": "Milk", "body": "two"}',
        "",
        [note("two")],
    ),
    "one brace too many": (
        "hermes",
        '<tool_call>\n{"name": "clock", "arguments": {}}}\n</tool_call>',
        "",
        [("clock", {})],
    ),
    "no end of the function": (
        "qwen3_coder",
        "<tool_call>\n<function=save_note>\n<parameter=title>\nMilk\n</parameter>\n<parameter=body>\ntwo\n"
        "</parameter>\n</tool_call> Bye.",
        " Bye.",
        [note("two")],
    ),
    "no end of the invocation": (
        "minimax_m2",
        '<minimax:tool_call>\n<invoke name="save_note">\n<parameter name="title">Milk</parameter>\n'
        '<parameter name="body">two</parameter>\n</minimax:tool_call>',
        "",
        [note("two")],
    ),
    "line breaks around the markers": ("mistral", '[TOOL_CALLS]\npay\n[ARGS]\n{"euros": 5}', "", [FIVE]),
    **{
        f"one brace too many: {name}": (name, f'{begin}{{"euros": 5}}}}{end}', "", [FIVE])
        for name, begin, end in (
            (
                "kimi_k2",
                "<|tool_call_begin|>functions.pay:0<|tool_call_argument_begin|>",
                "<|tool_call_end|>",
            ),
            ("deepseek_v31", "<｜tool▁call▁begin｜>pay<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
            ("openai", "<|channel|>commentary to=functions.pay <|constrain|>json<|message|>", "<|call|>"),
            ("mistral", "[TOOL_CALLS]pay", ""),
            ("jamba", '<tool_calls>[{"name": "pay", "arguments": ', "}]</tool_calls>"),
            ("granite", '<|tool_call|>[{"name": "pay", "arguments": ', "}]"),
        )
    },
    "a set": (
        "lfm2",
        "<|tool_call_start|>[tag(labels={'red', 'blue'})]<|tool_call_end|>",
        "",
        [("tag", {"labels": ["red", "blue"]})],
    ),
    "a key without its closing tag": (
        "glm45",
        "<tool_call>save_note\n<arg_key>title</arg_key>\n<arg_value>Milk</arg_value>\n"
        "<arg_key>body\n<arg_value>two</arg_value>\n</tool_call>",
        "",
        [("save_note", {"title": "Milk"})],
    ),
    "no end, but all values": (
        "glm47",
        "<tool_call>save_note<arg_key>title</arg_key><arg_value>Milk</arg_value>"
        "<arg_key>body</arg_key><arg_value>two</arg_value>",
        "",
        [],
    ),
}


@pytest.mark.parametrize(("name", "text", "content", "expected"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("whole", [True, False])
def test_what_it_means(name: str, text: str, content: str, expected: list[Any], whole: bool) -> None:
    pieces = [text] if whole else [*text]
    found, calls = parse_calls(PARSERS.load(name), *pieces, tools=TOOLS)
    if expected or not calls:
        assert [(called, json.loads(arguments)) for called, arguments in calls] == expected
    else:
        assert calls[0] == ("save_note", '{"title": "Milk", "body": "two"')
    assert found == content


KIMI = "<|tool_call_begin|>functions.clock:0<|tool_call_argument_begin|>"
HARMONY = "<|channel|>commentary to=functions.clock <|constrain|>json<|message|>"
V3 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>clock"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("openai", HARMONY),
        ("openai", f"{HARMONY}<|call|>"),
        ("openai", f"{HARMONY}\n<|end|>"),
        ("openai", "<|channel|>commentary to=functions.clock<|message|><|call|>"),
        ("kimi_k2", f"<|tool_calls_section_begin|>{KIMI}<|tool_call_end|><|tool_calls_section_end|>"),
        ("kimi_k2", f"<|tool_call_section_begin|>{KIMI}<|tool_call_end|><|tool_call_section_end|>"),
        ("kimi_k2", f"<|tool_call_section_begin|>{KIMI}{{}}<|tool_call_end|><|tool_call_section_end|>"),
        ("kimi_k2", f"<|tool_calls_section_begin|>{KIMI}<|tool_calls_section_end|>"),
        ("kimi_k2", "<|tool_call_begin|>functions.clock:0<|tool_call_end|>"),
        ("deepseek_v31", "<｜tool▁call▁begin｜>clock<｜tool▁sep｜><｜tool▁call▁end｜>"),
        ("deepseek_v3", f"{V3}\n```json\n\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
        ("deepseek_v3", f"{V3}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
        ("mistral", "[TOOL_CALLS]clock"),
        ("mistral", "[TOOL_CALLS]clock[ARGS]"),
        ("hermes", '<tool_call>\n{"name": "clock"}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "clock", "arguments": ""}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "clock", "arguments": null}\n</tool_call>'),
        ("jamba", '<tool_calls>[{"name": "clock"}]</tool_calls>'),
        ("llama3_json", '{"name": "clock", "parameters": ""}'),
        ("qwen3_coder", "<tool_call>\n<function=clock>\n</tool_call>"),
        ("minimax_m2", '<minimax:tool_call>\n<invoke name="clock">\n</minimax:tool_call>'),
        ("glm45", "<tool_call>clock\n</tool_call>"),
        ("glm47", "<tool_call>clock</tool_call>"),
    ],
)
def test_a_call_may_have_no_arguments_at_all(name: str, text: str) -> None:
    assert parse_calls(PARSERS.load(name), text, tools=TOOLS) == ("", [("clock", "{}")])
    assert parse_calls(PARSERS.load(name), *text, tools=TOOLS) == ("", [("clock", "{}")])


@pytest.mark.parametrize("name", ["clo", "save_note", "pay"])
def test_a_header_that_is_cut_off_is_no_call_without_arguments(name: str) -> None:
    clock_too = (*TOOLS, Tool("payment", parameters={"type": "object", "properties": {}}))
    required = Tool("save_note", parameters={"type": "object", "properties": {"a": TEXT}, "required": ["a"]})
    text = f"Yes.[TOOL_CALLS]{name}"
    assert parse_calls(PARSERS.load("mistral"), text, tools=(required, *clock_too)) == ("Yes.", [])


def test_a_call_without_arguments_ends_where_the_next_one_begins() -> None:
    text = '[TOOL_CALLS]clock[ARGS][TOOL_CALLS]pay[ARGS]{"euros": 5}'
    expected = ("", [("clock", "{}"), ("pay", '{"euros": 5}')])
    assert parse_calls(PARSERS.load("mistral"), *text, tools=TOOLS) == expected


JSON_CALLS = [
    (
        "kimi_k2",
        "<|tool_call_begin|>functions.save_note:0<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ),
    ("hermes", '<tool_call>\n{"name": "save_note", "arguments": ', "}\n</tool_call>"),
    ("mistral", "[TOOL_CALLS]save_note", ""),
    ("llama3_json", '{"name": "save_note", "parameters": ', "}"),
    ("openai", "<|channel|>commentary to=functions.save_note <|constrain|>json<|message|>", "<|call|>"),
]


@pytest.mark.parametrize(("name", "begin", "end"), JSON_CALLS)
def test_a_line_break_within_a_string_is_escaped(name: str, begin: str, end: str) -> None:
    text = f'{begin}{{"title": "Milk", "body": "two\nlitres"}}{end}'
    expected = ("", [("save_note", '{"title": "Milk", "body": "two\\nlitres"}')])
    assert parse_calls(PARSERS.load(name), text, tools=TOOLS) == expected
    assert parse_calls(PARSERS.load(name), *text, tools=TOOLS) == expected


@pytest.mark.parametrize(("name", "begin", "end"), JSON_CALLS)
def test_words_of_python_and_a_last_comma_become_json(name: str, begin: str, end: str) -> None:
    text = f'{begin}{{"title": "Milk", "urgent": True, "tags": [None, False,], }}{end}'
    expected = ("", [("save_note", '{"title": "Milk", "urgent": true, "tags": [null, false] }')])
    assert parse_calls(PARSERS.load(name), text, tools=TOOLS) == expected
    assert parse_calls(PARSERS.load(name), *text, tools=TOOLS) == expected


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("hermes", "<tool_call>", "</tool_call>"),
        ("jamba", "<tool_calls>", "</tool_calls>"),
        ("internlm", "<|plugin|>", "<|action_end|>"),
    ],
)
def test_arguments_that_stand_next_to_the_name_are_not_lost(name: str, begin: str, end: str) -> None:
    text = f'{begin}{{"name": "save_note", "title": "Milk", "body": "two"}}{end}'
    assert parse_calls(PARSERS.load(name), text, tools=TOOLS) == (text, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "qwen3_coder",
            "<tool_call>\n<function=save_note>\n<parameter=title>\nMilk\n</parameter>\n<parameter=body>\ntwo\n",
        ),
        (
            "mimo",
            "<tool_call>\n<function=save_note>\n<parameter=title>Milk</parameter>\n<parameter=body>two",
        ),
        (
            "minimax_m2",
            '<minimax:tool_call>\n<invoke name="save_note">\n<parameter name="title">Milk</parameter>\n'
            '<parameter name="body">two',
        ),
        (
            "glm45",
            "<tool_call>save_note\n<arg_key>title</arg_key>\n<arg_value>Milk</arg_value>\n"
            "<arg_key>body</arg_key>\n<arg_value>two",
        ),
    ],
)
@pytest.mark.parametrize("own_end", [True, False])
def test_closing_tags_at_the_end_of_the_output_are_no_part_of_a_value(
    name: str, text: str, own_end: bool
) -> None:
    end = {"minimax_m2": "</invoke>\n</minimax:tool_call>", "glm45": "</tool_call>"}
    closing = end.get(name, "</function>\n</tool_call>")
    text += closing if own_end else closing.splitlines()[-1]
    expected = ("", [note("two")])
    for pieces in ([text], [*text], [text, "\n"]):
        found, calls = parse_calls(PARSERS.load(name), *pieces, tools=TOOLS)
        assert (found, [(called, json.loads(arguments)) for called, arguments in calls]) == expected
    found, [(_, arguments)] = parse_calls(PARSERS.load(name), *text, " and on", tools=TOOLS)
    assert arguments.startswith('{"title": "Milk", "body": "two')


@pytest.mark.parametrize("after", ["", "\n", " Done."])
def test_a_brace_too_many_without_a_marker(after: str) -> None:
    text = f'{{"name": "clock", "parameters": {{}}}}}}{after}'
    found, calls = parse_calls(PARSERS.load("llama3_json"), *text, tools=TOOLS)
    assert (found.strip(), calls) == (after.strip(), [("clock", "{}")])
    again = f"{text.removesuffix(after)}; {text}"
    found, calls = parse_calls(PARSERS.load("llama3_json"), again, tools=TOOLS)
    assert (found.strip(), calls) == (after.strip(), [("clock", "{}")] * 2)


def test_a_list_that_is_repeated_after_its_end_is_called_once() -> None:
    text = "<|tool_call_start|>[pay(euros=5)]<|tool_call_end|>[pay(euros=5)]<|tool_call_end|>"
    expected = ("", [("pay", '{"euros": 5}')])
    for tools in (TOOLS, ()):
        assert parse_calls(PARSERS.load("lfm2"), text, tools=tools) == expected
        assert parse_calls(PARSERS.load("lfm2"), *text, tools=tools) == expected
    _, calls = parse_calls(PARSERS.load("lfm2"), text.removesuffix("<|tool_call_end|>"), tools=TOOLS)
    assert calls == expected[1]
    other = text.replace("5", "6", 1)
    assert parse_calls(PARSERS.load("lfm2"), other, tools=TOOLS)[1] == [("pay", '{"euros": 6}')]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("jamba", "Yes.<tool_calls>[]</tool_calls> No."),
        ("hunyuan_a13b", "Yes.<tool_calls>[ ]</tool_calls> No."),
        ("cohere_command3", "Yes.<|START_ACTION|>[\n]<|END_ACTION|> No."),
        ("apertus", "Yes.<|tools_prefix|>[]<|tools_suffix|> No."),
    ],
)
def test_an_empty_list_is_not_shown(name: str, text: str) -> None:
    assert parse_calls(PARSERS.load(name), text, tools=TOOLS) == ("Yes. No.", [])
    assert parse_calls(PARSERS.load(name), *text, tools=TOOLS) == ("Yes. No.", [])
