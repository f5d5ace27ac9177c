"""Outputs of Llama models, including those that other parsers lose."""

from typing import Any
from unittest.mock import Mock

import pytest

from fllm import ParserContext, ParserEvent, Text, Tool, ToolArguments, ToolStart
from fllm.parsing.body_scanner import MAX_DEPTH
from fllm.parsing.json_scanner import JsonScanner
from fllm.testing import ToolParserContract, merge_events, parse
from fllm_parsers.tools.llama3_json import TAG, Llama3JsonParser

WEATHER = '{"name": "get_weather", "parameters": {"city": "Tokyo"}}'
TIME = '{"name":"get_time","arguments":{"tz":"Asia/Tokyo"}}'
EMPTY = '{"name": "now", "parameters": {}}'
BROKEN = '{"name": "get_weather", "parameters": {bad}}'
CUT = '{"name": "get_weather", "parameters": {"city": "To'

weather = ("get_weather", '{"city": "Tokyo"}')
time = ("get_time", '{"tz":"Asia/Tokyo"}')
now = ("now", "{}")

PRETTY = '{\n  "name": "get_weather",\n  "parameters": {\n    "city": "Tokyo"\n  }\n}'

ONLY_CALLS = {
    "one": (WEATHER, [weather]),
    "without arguments": (EMPTY, [now]),
    "white space before": (" \n\t" + WEATHER, [weather]),
    "tag": (TAG + WEATHER, [weather]),
    "tag and white space": (f"\n{TAG} \n{WEATHER}", [weather]),
    "tag before each": (f"{TAG}{WEATHER}\n{TAG}{TIME}", [weather, time]),
    "semicolon and space": (f"{WEATHER}; {TIME}", [weather, time]),
    "semicolon": (f"{WEATHER};{TIME}", [weather, time]),
    "semicolon within spaces": (f"{WEATHER} ;\n {TIME} ; {EMPTY}", [weather, time, now]),
    "newline": (f"{WEATHER}\n{TIME}", [weather, time]),
    "nothing between": (f"{WEATHER}{TIME}{WEATHER}", [weather, time, weather]),
    "newline after": (WEATHER + "\n", [weather]),
    "separator after": (WEATHER + "; \n", [weather]),
    "array": (f"[{WEATHER}, {TIME}]", [weather, time]),
    "array of one": (f"[{WEATHER}]", [weather]),
    "array over lines": (f"{TAG}[\n  {WEATHER},\n  {TIME}\n]\n", [weather, time]),
    "array cut off": (f"[{WEATHER},", [weather]),
    "arrays": (f"[{WEATHER}] [{TIME}]", [weather, time]),
    "pretty printed": (PRETTY, [("get_weather", '{\n    "city": "Tokyo"\n  }')]),
    "other keys": (
        '{"type": "function", "name": "now", "parameters": {}, "id": [1, {"name": 2}]}',
        [now],
    ),
    "arguments first": ('{"parameters": {}, "name": "now"}', [now]),
    "both keys": ('{"name": "f", "parameters": {"a": 1}, "arguments": {"b": 2}}', [("f", '{"b": 2}')]),
    "key twice": ('{"name": "f", "name": "g", "parameters": {}}', [("g", "{}")]),
    "escaped keys": ('{"n\\u0061me": "\\u0066", "parameters": {}}', [("f", "{}")]),
    "unicode": ('{"name": "f", "parameters": {"q": "서울 ☀️ é😀"}}', [("f", '{"q": "서울 ☀️ é😀"}')]),
    "escapes": ('{"name": "f", "parameters": {"q": "\\ud83d\\ude00"}}', [("f", '{"q": "\\ud83d\\ude00"}')]),
    "braces in strings": ('{"name": "f", "parameters": {"q": "}{[\\"]}"}}', [("f", '{"q": "}{[\\"]}"}')]),
    "nested": (
        '{"name": "f", "parameters": {"a": {"b": [{"c": [1, -2.5e3, true, false, null]}]}}}',
        [("f", '{"a": {"b": [{"c": [1, -2.5e3, true, false, null]}]}}')],
    ),
    "arguments encoded twice": (
        '{"name": "f", "arguments": "{\\"city\\": \\"Paris\\"}"}',
        [("f", '{"city": "Paris"}')],
    ),
    "arguments of a sentence": ('{"name": "f", "parameters": "Tokyo"}', [("f", '"Tokyo"')]),
    "arguments of broken JSON": ('{"name": "f", "parameters": "{\\"a\\""}', [("f", '"{\\"a\\""')]),
    "arguments of a list": ('{"name": "f", "parameters": [1, 2]}', [("f", "[1, 2]")]),
    "arguments of a number": ('{"name": "f", "parameters": 12}', [("f", "12")]),
    "arguments of null": ('{"name": "f", "parameters": null}', [("f", "{}")]),
}

ONLY_CONTENT = {
    "empty": "",
    "white space": " \n",
    "prose": "Hello there; this is [1] {not} a call.",
    "prose after white space": "  Hello",
    "only a name": '{"name": "f"}',
    "only arguments": '{"parameters": {}}',
    "no name": '{"foo": 1}',
    "empty name": '{"name": "", "parameters": {}}',
    "name of half a surrogate pair": '{"name": "\\ud83d", "parameters": {}}',
    "name that is no string": '{"name": {"x": 1}, "parameters": {}}',
    "name that is null": '{"name": null, "parameters": {}}',
    "empty object": "{}",
    "array of no calls": '[{"foo": 1}, [2]]',
    "array of numbers": "[1, 2, 3]",
    "brackets": "[[ [",
    "cut off": CUT,
    "cut off behind the tag": TAG + CUT,
    "cut off within the tag": TAG[:-3],
    "cut off in an array": "[" + CUT,
    "cut off around a whole object": '{"name": "f", "parameters": {"name": "g", "parameters": {}}',
    "broken": BROKEN,
    "broken number": '{"name": "f", "parameters": {"a": 01}}',
    "broken string": '{"name": "f", "parameters": {"a": "b" c"}}',
    "code behind the tag": TAG + "print(1)",
    "call in a member": f'{{"tool_calls": [{WEATHER}]}}',
    "call in a broken member": f'{{"tool_calls": [{WEATHER}, oops]}}',
    "call in a string": '"{\\"name\\": \\"f\\", \\"parameters\\": {}}"',
    "too deep for any client": '{"name": "f", "parameters": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
}

MIXED: dict[str, tuple[str, list[Any]]] = {
    "prose before": (f"Let me look.\n{WEATHER}", ["Let me look.\n", weather]),
    "prose after": (f"{WEATHER}\n\nI asked.", [weather, "\n\nI asked."]),
    "prose between": (f"{WEATHER}; then {TIME}", [weather, "; then ", time]),
    "prose around": (f"So {WEATHER} it is", ["So ", weather, " it is"]),
    "prose around an array": (f"So [{WEATHER}, {TIME}\n] it is.", ["So ", weather, time, " it is."]),
    "prose before the tag": (f"So {TAG}{WEATHER}", ["So ", weather]),
    "a bracket that opens nothing": (f"So [] {WEATHER}] ]", ["So [] ", weather]),
    "a fence": (f"```json\n{WEATHER}\n```", ["```json\n", weather, "\n```"]),
    "a brace before": (f"set {{ and {{x}} {WEATHER}", ["set { and {x} ", weather]),
    "a brace with a quote before": (f'type {{"a then {WEATHER}', ['type {"a then ', weather]),
    "double braces": ('{{"name": "now", "parameters": {}}}', ["{", now]),
    "broken before": (f"{BROKEN}; {WEATHER}", [f"{BROKEN}; ", weather]),
    "broken between": (f"{WEATHER}; {BROKEN}; {TIME}", [weather, f"; {BROKEN}; ", time]),
    "broken in an array": (f"[{WEATHER}, {BROKEN}, {TIME}]", [weather, f", {BROKEN}, ", time]),
    "brace missing": (f"{WEATHER[:-1]}; {TIME}", [f"{WEATHER[:-1]}; ", time]),
    "quote missing": (f"{CUT}}}}}; {TIME}", [f"{CUT}}}}}; ", time]),
    "brace too many": (WEATHER + "}", [weather]),
    "cut off after a call": (f"{WEATHER}; {CUT}", [weather, f"; {CUT}"]),
    "no call between": (f'{WEATHER}{{"foo": 1}}{TIME}', [weather, '{"foo": 1}', time]),
    "half a tag before": (f"{TAG[:4]}{WEATHER}", [TAG[:4], weather]),
    "half a tag after": (f"{WEATHER} {TAG[:4]}", [weather, f" {TAG[:4]}"]),
}


def found(text: str, *tools: str) -> list[str | tuple[str, str]]:
    """Content as strings and calls as pairs, in their order."""
    parser = Llama3JsonParser(ParserContext(tools=tuple(map(Tool, tools))))
    return plain(parse(parser, [text]))


def plain(events: list[ParserEvent]) -> list[str | tuple[str, str]]:
    result: list[str | tuple[str, str]] = []
    for event in events:
        if isinstance(event, ToolStart):
            result.append((event.name, ""))
        elif isinstance(event, ToolArguments):
            result[-1] = (result[-1][0], event.text)
        else:
            assert isinstance(event, Text)
            result.append(event.text)
    return result


class TestTheLaw(ToolParserContract):
    parser = Llama3JsonParser
    samples = (
        *(text for text, _ in ONLY_CALLS.values()),
        *ONLY_CONTENT.values(),
        *(text for text, _ in MIXED.values()),
    )
    fragments = (
        TAG,
        TAG[:5],
        TAG[5:],
        "[",
        "]",
        ",",
        ";",
        "{",
        "}",
        '{"',
        '":',
        '"',
        "\\",
        '"name"',
        WEATHER,
        TIME,
    )


class TestTheLawWithTools(TestTheLaw):
    context = ParserContext(tools=(Tool("get_time"),))
    max_examples = 50


@pytest.mark.parametrize(("text", "calls"), ONLY_CALLS.values(), ids=ONLY_CALLS)
def test_calls_alone_leave_no_content(text: str, calls: list[tuple[str, str]]) -> None:
    assert found(text) == calls


@pytest.mark.parametrize("text", ONLY_CONTENT.values(), ids=ONLY_CONTENT)
def test_what_is_no_call_is_content_whole_and_once(text: str) -> None:
    assert found(text) == ([text] if text else [])


@pytest.mark.parametrize(("text", "expected"), MIXED.values(), ids=MIXED)
def test_calls_are_found_beside_content(text: str, expected: list[str | tuple[str, str]]) -> None:
    assert found(text) == expected


def test_arguments_come_out_as_the_model_wrote_them() -> None:
    arguments = '{"location": "San Francisco, CA", "unit": "fahrenheit"}'
    assert found(f'{{"name": "get_weather", "parameters": {arguments}}}') == [("get_weather", arguments)]


def test_within_prose_only_the_tools_of_the_request_are_called() -> None:
    assert found(f"So {WEATHER}", "get_weather") == ["So ", weather]
    assert found(f"So {WEATHER}", "get_time") == [f"So {WEATHER}"]
    assert found(f"{BROKEN}; {TIME}", "get_time") == [f"{BROKEN}; ", time]


@pytest.mark.parametrize("before", ["", " ", TAG, "[", f"So {TAG}"])
def test_an_unknown_tool_is_called_where_a_call_must_come(before: str) -> None:
    assert found(f"{before}{WEATHER}; {EMPTY}", "get_time")[-2:] == [weather, now]


def test_calls_are_numbered() -> None:
    events = parse(Llama3JsonParser(ParserContext()), [f"{WEATHER}; {BROKEN}; {TIME}"])
    assert [event.index for event in events if isinstance(event, ToolStart | ToolArguments)] == [0, 0, 1, 1]


def test_prose_passes_at_once() -> None:
    parser = Llama3JsonParser(ParserContext())
    for piece in ["So", " let", " me { look", " [at] ", "a <b>", " for you"]:
        assert parser.feed(piece) == [Text(piece)]


def test_a_brace_is_released_as_soon_as_it_can_begin_no_object() -> None:
    parser = Llama3JsonParser(ParserContext())
    assert parser.feed('if (x) { "a"') == [Text("if (x) ")]
    assert parser.feed(";") == [Text('{ "a";')]


def test_a_call_is_emitted_when_it_is_complete() -> None:
    parser = Llama3JsonParser(ParserContext())
    assert parser.feed(WEATHER[:-1]) == []
    assert merge_events(parser.feed("}")) == [ToolStart(0, weather[0]), ToolArguments(0, weather[1])]
    assert parser.feed("; ") == []
    assert parser.finish() == []


def test_a_long_name_is_not_read_again_with_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Mock(wraps=JsonScanner.json_text)
    monkeypatch.setattr(JsonScanner, "json_text", lambda *arguments: read(*arguments))
    parser = Llama3JsonParser(ParserContext(tools=(Tool("now"),)))
    for piece in ('{"name": "', *("x" * 1000)):
        parser.feed(piece)
    assert read.call_count < 10
