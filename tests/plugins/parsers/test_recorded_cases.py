"""What the tests of other projects expect of parsers of the same names.

Every name that our plugin offers and that a file of cases bears is tested; `EXCUSED` says which cases are not
met, and why.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.paths import SHARED

from fllm import Parser, ParserContext, ParserEvent, Reasoning, Text, Tool, ToolArguments, ToolStart
from fllm.plugins.registry import Registry
from fllm.testing import parse, plugins_with
from fllm_parsers import plugin

CASES = SHARED / "cases"
OURS = plugins_with(plugin, installed=False)
REGISTRIES: dict[str, Registry[Any]] = {"tool": OURS.tool_parsers, "reasoning": OURS.reasoning_parsers}

EXCUSED: dict[str, dict[str, str]] = {
    "tool/gemma4": {
        "0.32.0 TestExtractToolCalls::test_incomplete_tool_call": "a call that is cut off is text",
        "test_malformed_no_brace_bounded": "a name without arguments is no call",
        "TestNonStreamingToolCalls::test_number_and_boolean": "elsewhere, numbers are numbers",
    },
    "tool/granite": {
        'malformed_input[False] <|tool_call|> {"name': "one object is a call as much as a list is",
    },
    "tool/internlm": {
        "test_malformed_input[True]": "a half of the marker was emitted, and the rest of the text was lost",
    },
    "tool/lfm2": {
        "nested_python_c_streaming": "quotes within quotes without escapes are no Python",
    },
    "tool/llama4_pythonic": {
        "[python_tag_streaming]": "the marker is content only if streamed",
        "[parallel_calls_streaming1]": "the marker is content only if streamed",
    },
    "tool/minimax": {
        "thinking_tag_buffering": "a tag without a call is text",
        "multiline_json_not_supported": "an object over several lines is a call, too",
    },
    "tool/minimax_m2": {
        "test_invalid_tool_name_is_rejected": "what is no call is text",
    },
    "tool/nemotron_v3": {
        "tool-chunk=2] \n<parameter=path>": "a part of an answer: the call began before",
        "tool-only-chunk=3] \n<parameter=path>": "a part of an answer: the call began before",
    },
    "tool/qwen3_xml": {
        "0.19.1 TestQwen3xmlToolParser::test_various_data_types": "now it is a string: there is no schema",
        "TestTruncatedToolOpenerStreamParity::test_truncated_opener_dropped": "what is no call is text",
        "test_content_before_truncated_opener_preserved": "what is no call is text",
        "test_content_around_unpromoted_tool_block_stays_ordered": "what is no call is text",
    },
    "tool/seed_oss": {
        "test_malformed_function_end_does_not_drop_siblings": "half a tag is no call; the other is one",
    },
    "tool/xlam": {
        "streaming_incremental[single_tool_with_json_code_block]": "half of the block was emitted, too",
    },
    "reasoning/deepseek_r1": {
        "0.32.0 test_reasoning[new_line_streaming]": "the same white space is dropped if not streamed",
    },
    "reasoning/deepseek_v4": {
        "without_think_end \n\n": "a part of an answer: white space at its end is not lost",
        "think-then-tool-chunk=11": "a part of an answer: the tool-call parser held a character back",
    },
    "reasoning/gemma4": {
        "test_gemma4_reasoning[invalid_simple]": "if streamed, what no marker opens is no reasoning",
    },
    "reasoning/glm45": {
        "0.11.2 test_reasoning[without_think]": "the later version takes it for reasoning",
        "0.11.2 test_reasoning[only_open_tag]": "the later version takes it for reasoning",
    },
    "reasoning/kimi_k2": {
        "whitespace-chunk=1]  \n\t": "a part of an answer: white space at its end is not lost",
    },
    "reasoning/minimax_m2": {
        "think-then-parallel-tools-chunk=11": "a part of an answer: the tool-call parser held a word back",
    },
    "reasoning/qwen3": {
        "0.11.2 test_reasoning[only_open_tag]": "the later version takes it for reasoning",
    },
}
"""By file: parts of a case's version, name and text, and why it is not met. What is met needs no excuse."""


def recorded(kind: str) -> list[Any]:
    """The cases of every parser of this kind that we have."""
    if not CASES.is_dir():
        reason = "the recorded cases do not lie beside this checkout"
        return [pytest.param("", {}, marks=pytest.mark.skip(reason=reason))]
    return [case for name in REGISTRIES[kind].names() for case in of_parser(kind, name)]


def of_parser(kind: str, name: str) -> Iterator[Any]:
    file = CASES / kind / f"{name}.json"
    if file.is_file():
        for number, case in enumerate(json.loads(file.read_text(encoding="utf-8"))):
            marks = excuse(kind, name, case)
            yield pytest.param(name, case, id=f"{name}-{number}-{case['name']}", marks=marks)


def excuse(kind: str, name: str, case: dict[str, Any]) -> list[pytest.MarkDecorator]:
    text = case["model_output"] if isinstance(case["model_output"], str) else "".join(case["model_output"])
    label = f"{case['source_version']} {case['name']} {text}"
    reasons = [why for part, why in EXCUSED.get(f"{kind}/{name}", {}).items() if part in label]
    return [pytest.mark.xfail(reason=why, strict=True, raises=AssertionError) for why in reasons]


def made(registry: Registry, name: str, case: dict[str, Any]) -> list[ParserEvent]:
    """What our parser of that name makes of a case's text, in the pieces in which it came."""
    parser: Parser = registry.load(name)(context(case))
    output = case["model_output"]
    return parse(parser, [output] if isinstance(output, str) else output)


def context(case: dict[str, Any]) -> ParserContext:
    functions = [tool["function"] for tool in case.get("tools") or ()]
    of_request = case.get("request", {}).get("chat_template_kwargs", {})
    return ParserContext(
        tools=tuple(Tool(each["name"], parameters=each.get("parameters", {})) for each in functions),
        template_kwargs=of_request | case.get("chat_template_kwargs", {}),
    )


def joined(events: list[ParserEvent], kind: type[Text] | type[Reasoning]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def calls(events: list[ParserEvent]) -> list[tuple[str, Any]]:
    """Names and arguments; the latter decoded, where they are JSON."""
    starts = [event for event in events if isinstance(event, ToolStart)]
    texts = ["" for _ in starts]
    for event in events:
        if isinstance(event, ToolArguments):
            texts[event.index] += event.text
    return [(start.name, decoded(text)) for start, text in zip(starts, texts, strict=True)]


def decoded(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def fragment(case: dict[str, Any]) -> bool:
    """Whether it is a part of an answer, often from the middle of a call, of which others emitted nothing."""
    expected = case["expected"]
    return case["streaming"] and not expected["tool_calls"] and not expected["content"]


@pytest.mark.parametrize(("name", "case"), recorded("tool"))
def test_tool_calls_are_found_as_others_find_them(name: str, case: dict[str, Any]) -> None:
    expected = case["expected"]
    wanted = [(call["name"], decoded(call["arguments"])) for call in expected["tool_calls"]]
    events = made(OURS.tool_parsers, name, case)
    if fragment(case):
        assert not calls(events)
        return
    if "arguments_not_complete_json" in case.get("flags", ()):
        # Half of a call's arguments is of no use to anybody: a call that is cut off is text.
        wanted = wanted[: len(calls(events))]
        assert all(isinstance(arguments, dict) for _, arguments in calls(events))
        assert [found for found, _ in calls(events)] == [named for named, _ in wanted]
        return
    assert calls(events) == wanted
    content, said = expected["content"] or "", joined(events, Text)
    # Others drop some of the prose around calls; ours keeps it.
    assert said == content or (wanted and content.strip() in said)


@pytest.mark.parametrize(("name", "case"), recorded("reasoning"))
def test_reasoning_is_told_from_the_answer_as_others_tell_it(name: str, case: dict[str, Any]) -> None:
    events = made(OURS.reasoning_parsers, name, case)
    expected = case["expected"]
    assert joined(events, Reasoning) == (expected["reasoning_content"] or "")
    assert joined(events, Text) == (expected["content"] or "")


def test_every_excuse_is_for_a_parser_that_we_have() -> None:
    offered = {f"{kind}/{name}" for kind, registry in REGISTRIES.items() for name in registry.names()}
    assert offered >= EXCUSED.keys()
