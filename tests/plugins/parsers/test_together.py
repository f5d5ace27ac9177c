"""A reasoning parser first, and a tool-call parser for what it leaves as text."""

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm import ParserContext, ParserEvent, Reasoning, Text, ToolArguments, ToolStart
from fllm.testing import parse, plugins_with
from fllm_parsers import plugin

OURS = plugins_with(plugin, installed=False)

CALLED = [ToolStart(0, "f"), ToolArguments(0, '{"a": 1}')]
SIMPLE = '{"name": "f", "parameters": {"a": 1}}'
TAGGED = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
HARMONY = '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}'
EARLY = '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"a": 1}'
KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
    '<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_calls_section_end|>'
)

R1 = ("deepseek_r1", "llama3_json")
QWEN = ("qwen3", "hermes")
GPT = ("openai_gptoss", "openai")
ROWS: list[tuple[tuple[str, str], str, list[ParserEvent]]] = [
    (R1, f"<think>\nHm.\n</think>\n\n{SIMPLE}", [Reasoning("\nHm.\n"), *CALLED]),
    (R1, f"Hm.</think>{SIMPLE}; ", [Reasoning("Hm."), *CALLED]),
    (R1, f"Hm.</think>So {SIMPLE}", [Reasoning("Hm."), Text("So "), *CALLED]),
    (R1, "Hm.</think>\n\nNo call.", [Reasoning("Hm."), Text("\n\nNo call.")]),
    (R1, f"I could call {SIMPLE}", [Reasoning(f"I could call {SIMPLE}")]),
    (QWEN, f"<think>\nHm.\n</think>\n\n{TAGGED}", [Reasoning("\nHm.\n"), *CALLED]),
    (QWEN, f"Hm.\n{TAGGED}", [Reasoning("Hm.\n"), *CALLED]),
    (GPT, f"<|channel|>analysis<|message|>Hm.<|end|>{HARMONY}", [Reasoning("Hm."), *CALLED]),
    (GPT, f"<|channel|>analysis<|message|>Hm.<|end|>{EARLY}", [Reasoning("Hm."), *CALLED]),
    (
        GPT,
        f"<|channel|>commentary<|message|>Let me see.<|end|>{HARMONY}",
        [Text("Let me see."), *CALLED],
    ),
    (
        ("gemma4", "gemma4"),
        "<|channel>thought\nHm.<channel|><|tool_call>call:f{a:1}<tool_call|>",
        [Reasoning("Hm."), ToolStart(0, "f"), ToolArguments(0, '{"a": 1}')],
    ),
    (
        ("mistral", "mistral"),
        '[THINK]Hm.[/THINK][TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]',
        [Reasoning("Hm."), *CALLED],
    ),
]

DSML = (
    '<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>"
)
ELEMENTS = (
    '<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument key="a" type="number"<|sep|>1'
    "<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>"
)
M3 = "]<]minimax[>["
NEWER: list[tuple[tuple[str, str], str, list[ParserEvent]]] = [
    (
        ("deepseek_v4", "deepseek_v4"),
        f"Hm.</think>\n\n<｜DSML｜tool_calls>\n{DSML}\n</｜DSML｜tool_calls>",
        [Reasoning("Hm."), *CALLED],
    ),
    (
        ("kimi_k3", "kimi_k3"),
        "Hm.<|close|>think<|sep|><|open|>response<|sep|>So.<|close|>response<|sep|>"
        f"{ELEMENTS}<|close|>message<|sep|>",
        [Reasoning("Hm."), Text("So."), *CALLED],
    ),
    (("kimi_k3", "kimi_k3"), f"Hm.{ELEMENTS}", [Reasoning("Hm."), *CALLED]),
    (
        ("cohere_command3", "cohere_command3"),
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_ACTION|>[\n    "
        '{"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}}\n]<|END_ACTION|>',
        [Reasoning("Hm."), *CALLED],
    ),
    (
        ("minimax_m3", "minimax_m3"),
        f'<mm:think>Hm.</mm:think>{M3}<tool_call>\n{M3}<invoke name="f">{M3}<a>1{M3}</a>{M3}</invoke>\n'
        f"{M3}</tool_call>",
        [Reasoning("Hm."), ToolStart(0, "f"), ToolArguments(0, '{"a": "1"}')],
    ),
    (
        ("apertus", "apertus"),
        '<|inner_prefix|>Hm.<|inner_suffix|><|tools_prefix|>[{"f": {"a": 1}}]<|tools_suffix|>',
        [Reasoning("Hm."), *CALLED],
    ),
    (
        ("hy_v3", "hy_v3"),
        "Hm.</think:opensource><tool_calls:opensource>\n<tool_call:opensource>f<tool_sep:opensource>\n"
        "<arg_key:opensource>a</arg_key:opensource>\n<arg_value:opensource>1</arg_value:opensource>\n"
        "</tool_call:opensource>\n</tool_calls:opensource>",
        [Reasoning("Hm."), *CALLED],
    ),
    (
        ("muse_glimmer", "muse_glimmer"),
        " to=self<|message|>Hm.<|eom|><|start|>assistant to=f<|message|><atem:function_calls>\n"
        '<atem:invoke name="f">\n<atem:parameter name="a">1</atem:parameter>\n</atem:invoke>\n'
        "</atem:function_calls><|eot|>",
        [Reasoning("Hm."), *CALLED],
    ),
]
ROWS += NEWER


class Both:
    """The two in a row, as a parser of its own."""

    def __init__(self, reasoning: str, tools: str) -> None:
        self._reasoning = OURS.reasoning_parsers.load(reasoning)(ParserContext())
        self._tools = OURS.tool_parsers.load(tools)(ParserContext())

    def feed(self, text: str) -> list[ParserEvent]:
        return list(self._call(self._reasoning.feed(text)))

    def finish(self) -> list[ParserEvent]:
        return [*self._call(self._reasoning.finish()), *self._tools.finish()]

    def _call(self, events: Iterable[ParserEvent]) -> Iterator[ParserEvent]:
        for event in events:
            yield from self._tools.feed(event.text) if isinstance(event, Text) else [event]


@pytest.mark.parametrize(("names", "text", "expected"), ROWS)
def test_calls_are_found_behind_the_reasoning(
    names: tuple[str, str], text: str, expected: list[ParserEvent]
) -> None:
    assert parse(Both(*names), [text]) == expected
    assert parse(Both(*names), text) == expected


def test_a_call_keeps_its_id_behind_the_reasoning() -> None:
    events = parse(Both("kimi_k2", "kimi_k2"), [f"Hm.{KIMI}"])
    assert events[0] == Reasoning("Hm.")
    assert isinstance(events[1], ToolStart)
    assert (events[1].name, events[2:]) == ("f", [ToolArguments(0, '{"a": 1}')])


@pytest.mark.parametrize("names", [R1, QWEN, GPT, ("kimi_k3", "kimi_k3"), ("minimax_m3", "minimax_m3")])
def test_together_they_obey_the_law(names: tuple[str, str]) -> None:
    whole = [text for other, text, _ in ROWS if other == names]
    nested = '{"name": "f", "parameters": {"a": "</think>"}}'
    parts = [*whole, nested, SIMPLE, TAGGED, HARMONY, "<think>", "</think>", "; ", "\n", "<", "é😀", "{"]

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(parts)), st.integers(1, 9))
    def law(parts: list[str], size: int) -> None:
        text = "".join(parts)
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert parse(Both(*names), pieces) == parse(Both(*names), [text])

    law()
