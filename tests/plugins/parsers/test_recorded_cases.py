"""What the tests of other projects expect of parsers of the same names."""

import json
from pathlib import Path
from typing import Any

import pytest

from fllm import Parser, ParserContext, ParserEvent, Reasoning, Text, Tool, ToolArguments, ToolStart
from fllm.testing import parse
from fllm_parsers.reasoning.deepseek_r1 import DeepSeekR1Parser
from fllm_parsers.tools.llama3_json import Llama3JsonParser

CASES = Path(__file__).parents[3].parent / "shared" / "cases"

CONTRADICTING = {
    # White space before <think>: reasoning where streamed, and not otherwise. Readers want none of it.
    "test_reasoning[new_line_streaming]",
}


def cases(kind: str, parser: str) -> list[Any]:
    file = CASES / kind / f"{parser}.json"
    if not file.is_file():
        reason = "the recorded cases do not lie beside this checkout"
        return [pytest.param({}, marks=pytest.mark.skip(reason=reason))]
    found = json.loads(file.read_text(encoding="utf-8"))
    return [pytest.param(case, id=f"{i}-{case['name']}") for i, case in enumerate(found)]


def events(parser: Parser, case: dict[str, Any]) -> list[ParserEvent]:
    output = case["model_output"]
    return parse(parser, [output] if isinstance(output, str) else output)


def joined(events: list[ParserEvent], kind: type[Text] | type[Reasoning]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def same_json(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return one == other


@pytest.mark.parametrize("case", cases("tool", "llama3_json"))
def test_llama3_json(case: dict[str, Any]) -> None:
    tools = tuple(Tool(tool["function"]["name"]) for tool in case.get("tools") or ())
    made = events(Llama3JsonParser(ParserContext(tools=tools)), case)
    expected = case["expected"]
    names = [event.name for event in made if isinstance(event, ToolStart)]
    arguments = [event.text for event in made if isinstance(event, ToolArguments)]
    assert names == [call["name"] for call in expected["tool_calls"]]
    assert all(map(same_json, arguments, [call["arguments"] for call in expected["tool_calls"]]))
    # Others drop the prose around calls; ours keeps it.
    assert joined(made, Text) == (expected["content"] or "") or (names and not expected["content"])


@pytest.mark.parametrize("case", cases("reasoning", "deepseek_r1"))
def test_deepseek_r1(case: dict[str, Any]) -> None:
    made = events(DeepSeekR1Parser(ParserContext()), case)
    expected = case["expected"]
    reasoning = expected["reasoning_content"] or ""
    if case["name"] in CONTRADICTING:
        reasoning = reasoning.lstrip()
    assert joined(made, Reasoning) == reasoning
    assert joined(made, Text) == (expected["content"] or "")
