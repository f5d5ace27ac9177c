"""What the tests of other projects expect of parsers of the same names.

Every parser that the plugin offers is tested with the file of cases of its name. `EXPECTED_FAILURES` lists
the cases that our parsers do not meet, with the reasons.
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
PLUGINS = plugins_with(plugin, installed=False)
REGISTRIES: dict[str, Registry[Any]] = {"tool": PLUGINS.tool_parsers, "reasoning": PLUGINS.reasoning_parsers}

EXPECTED_FAILURES: dict[str, dict[str, str]] = {
    "tool/deepseek_v32": {
        "wrapper_repaired": "an argument may have any name",
        "test_streaming_wrapper_unwrap": "an argument may have any name",
    },
    "tool/deepseek_v4": {
        "test_unwrap_parallel": "an argument may have any name",
        "test_streaming_wrapper_unwrap": "an argument may have any name",
    },
    "tool/deepseek_v41": {
        "parallel_calls_across_chunks[7-False-False] g.": "half of a marker is text if the output ends",
    },
    "tool/gemma4": {
        "TestExtractToolCalls::test_incomplete_tool_call": "a call that is cut off is a call",
        "test_malformed_no_brace_bounded": "a name without arguments is not a call",
        "TestNonStreamingToolCalls::test_number_and_boolean": "in other cases, numbers are numbers",
    },
    "tool/granite4": {"tool_call_invalid_json": "a call that is cut off is a call"},
    "tool/hermes": {"tool_call_invalid_json": "a call that is cut off is a call"},
    "tool/granite": {
        'malformed_input[False] <|tool_call|> {"name': "a single object is a call, like a list",
    },
    "tool/internlm": {
        "test_malformed_input[True]": "half of the marker was emitted, and the rest of the text was lost",
    },
    "tool/lfm2": {
        "nested_python_c_streaming": "quotes in quotes without escapes are not valid Python",
    },
    "tool/llama4_pythonic": {
        "[python_tag_streaming]": "the marker is content only in streamed cases",
        "[parallel_calls_streaming1]": "the marker is content only in streamed cases",
    },
    "tool/minimax": {
        "thinking_tag_buffering": "a tag without a call is text",
        "multiline_json_not_supported": "an object over several lines is also a call",
    },
    "tool/minicpm5": {
        "streaming_collapsed_tags_weather": "parts of the call were emitted as text as well",
        "test_unknown_tool_block_preserved": "white space at the end of text is kept",
        "test_incomplete_missing_function_end": "a call that is cut off is a call",
        "test_duplicate_param_names_invalid": "a repeated argument does not make a call text",
        "sentencepiece_normalized": "the tokenizer decodes such texts",
        "wrapped_arguments": "an argument may have any name",
        "test_extra_arguments": "the tool reports unknown arguments",
        "test_zero_arg_tool_ignores_extra": "the tool reports unknown arguments",
        "test_alias": "a tool has one name",
        "test_extract_tool_calls_streaming_single": "parts of the call were emitted as text as well",
    },
    "tool/minimax_m3": {
        "test_unknown_tool_keeps_text": "without a schema, items are a list",
        "test_malformed_element_keeps_preceding_params[]<]minimax[>[<note>a": "a string is emitted at once",
        "]<]minimax[>[<n>" * 128: "deeper tags are a string",
    },
    "tool/muse_glimmer": {
        "test_echoed_invoke": "the reasoning parser handles messages",
        "test_plain_answer": "the reasoning parser handles messages",
        "test_streaming_reasoning_then_content": "the reasoning parser handles messages",
        "test_truncated_cot": "the reasoning parser handles messages",
    },
    "tool/minimax_m2": {
        "test_invalid_tool_name_is_rejected": "text without a call is content",
    },
    "tool/nemotron_v3": {
        "tool-chunk=2] \n<parameter=path>": "a fragment: the call began earlier",
        "tool-only-chunk=3] \n<parameter=path>": "a fragment: the call began earlier",
    },
    "tool/qwen3_xml": {
        "0.19.1 TestQwen3xmlToolParser::test_various_data_types": "a later version expects a string",
        "test_content_around_unpromoted_tool_block_stays_ordered": "text without a call is content",
    },
    "tool/seed_oss": {
        "test_malformed_function_end_does_not_drop_siblings": "half a tag is not a call; the other call is",
    },
    "tool/xlam": {
        "streaming_incremental[single_tool_with_json_code_block]": "half of the block was emitted as well",
    },
    "reasoning/deepseek_r1": {
        "0.32.0 test_reasoning[new_line_streaming]": "the same white space is dropped in unstreamed cases",
    },
    "reasoning/deepseek_v4": {
        "without_think_end \n\n": "a fragment: white space at its end is kept",
        "think-then-tool-chunk=11": "a fragment: the tool-call parser held back a character",
    },
    "reasoning/deepseek_v41": {
        "complex-json-args-chunk=11": "a fragment: the tool-call parser held back half of a tag",
    },
    "reasoning/gemma4": {
        "test_gemma4_reasoning[invalid_simple]": "in streamed cases, text without a marker is not reasoning",
    },
    "reasoning/glm45": {
        "0.11.2 test_reasoning[without_think]": "a later version treats it as reasoning",
        "0.11.2 test_reasoning[only_open_tag]": "a later version treats it as reasoning",
    },
    "reasoning/kimi_k2": {
        "whitespace-chunk=1]  \n\t": "a fragment: white space at its end is kept",
    },
    "reasoning/minimax_m2": {
        "think-then-parallel-tools-chunk=11": "a fragment: the tool-call parser held back a word",
    },
    "reasoning/muse_glimmer": {
        "test_reasoning_then_parallel_calls": "the headers of calls are not needed",
        "test_streaming_toolcall_chunk3": "only the beginning of the call was recorded",
        "test_streaming_toolcall_charwise": "only the beginning of the call was recorded",
    },
    "reasoning/plamo3": {
        " <|plamo:begin_$": "half of a special token does not occur",
        "test_plain_content_is_preserved[registered-": "unknown special tokens do not reach the parser",
        "test_partial_end_think": "half of a special token does not occur",
    },
    "reasoning/qwen3": {
        "0.11.2 test_reasoning[only_open_tag]": "a later version treats it as reasoning",
    },
}
"""By file: part of a case's version, name and text, which ``$`` ends, and the reason.

A case that passes must not be listed.
"""


def recorded_cases(kind: str) -> list[Any]:
    """Return the cases of every parser of this kind that the plugin offers."""
    if not CASES.is_dir():
        reason = "the recorded cases are not next to this checkout"
        return [pytest.param("", {}, marks=pytest.mark.skip(reason=reason))]
    return [case for name in REGISTRIES[kind].names() for case in cases_of(kind, name)]


def cases_of(kind: str, name: str) -> Iterator[Any]:
    file = CASES / kind / f"{name}.json"
    if file.is_file():
        for number, case in enumerate(json.loads(file.read_text(encoding="utf-8"))):
            marks = expected_failures(kind, name, case)
            yield pytest.param(name, case, id=f"{name}-{number}-{case['name']}", marks=marks)


def expected_failures(kind: str, name: str, case: dict[str, Any]) -> list[pytest.MarkDecorator]:
    text = case["model_output"] if isinstance(case["model_output"], str) else "".join(case["model_output"])
    label = f"{case['source_version']} {case['name']} {text}$"
    reasons = [why for part, why in EXPECTED_FAILURES.get(f"{kind}/{name}", {}).items() if part in label]
    return [pytest.mark.xfail(reason=why, strict=True, raises=AssertionError) for why in reasons]


def events_of(registry: Registry, name: str, case: dict[str, Any]) -> list[ParserEvent]:
    """Return the events of our parser for a case's text, in the recorded pieces."""
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


def text_of(events: list[ParserEvent], kind: type[Text] | type[Reasoning]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def calls(events: list[ParserEvent]) -> list[tuple[str, Any]]:
    """Return names and arguments; arguments are decoded if they are JSON."""
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


def is_fragment(case: dict[str, Any]) -> bool:
    """Return whether a case is part of an output, such as the middle of a call, and expects no events."""
    expected = case["expected"]
    return case["streaming"] and not expected["tool_calls"] and not expected["content"]


@pytest.mark.parametrize(("name", "case"), recorded_cases("tool"))
def test_tool_calls_match_other_projects(name: str, case: dict[str, Any]) -> None:
    expected = case["expected"]
    wanted = [(call["name"], decoded(call["arguments"])) for call in expected["tool_calls"]]
    events = events_of(PLUGINS.tool_parsers, name, case)
    if is_fragment(case):
        # The recorded events of a call that is cut off came with another fragment.
        assert all(isinstance(arguments, str) for _, arguments in calls(events))
        return
    if "arguments_not_complete_json" in case.get("flags", ()):
        # How much of a value that is cut off is known differs.
        wanted = wanted[: len(calls(events))]
        assert [found for found, _ in calls(events)] == [named for named, _ in wanted]
        return
    assert calls(events) == wanted
    content, text = expected["content"] or "", text_of(events, Text)
    # Other parsers drop some of the text around calls; ours keep it.
    assert text == content or (wanted and content.strip() in text)


@pytest.mark.parametrize(("name", "case"), recorded_cases("reasoning"))
def test_reasoning_matches_other_projects(name: str, case: dict[str, Any]) -> None:
    events = events_of(PLUGINS.reasoning_parsers, name, case)
    expected = case["expected"]
    assert text_of(events, Reasoning) == (expected["reasoning_content"] or "")
    assert text_of(events, Text) == (expected["content"] or "")


def test_expected_failures_name_existing_parsers() -> None:
    offered = {f"{kind}/{name}" for kind, registry in REGISTRIES.items() for name in registry.names()}
    assert offered >= EXPECTED_FAILURES.keys()
