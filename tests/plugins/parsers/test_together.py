"""A reasoning parser first, and a tool-call parser for what it leaves as text."""

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fllm import ParserContext, ParserEvent, Reasoning, Text, ToolArguments, ToolStart
from fllm.testing import parse
from fllm_parsers.reasoning.deepseek_r1 import DeepSeekR1Parser
from fllm_parsers.tools.llama3_json import Llama3JsonParser

CALL = '{"name": "f", "parameters": {"a": "</think>"}}'
CALLED = [ToolStart(0, "f"), ToolArguments(0, '{"a": 1}')]
SIMPLE = '{"name": "f", "parameters": {"a": 1}}'


class Both:
    """The two in a row, as a parser of its own."""

    def __init__(self) -> None:
        self._reasoning = DeepSeekR1Parser(ParserContext())
        self._tools = Llama3JsonParser(ParserContext())

    def feed(self, text: str) -> list[ParserEvent]:
        return list(self._call(self._reasoning.feed(text)))

    def finish(self) -> list[ParserEvent]:
        return [*self._call(self._reasoning.finish()), *self._tools.finish()]

    def _call(self, events: Iterable[ParserEvent]) -> Iterator[ParserEvent]:
        for event in events:
            yield from self._tools.feed(event.text) if isinstance(event, Text) else [event]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<think>\nHm.\n</think>\n\n{SIMPLE}", [Reasoning("\nHm.\n"), *CALLED]),
        (f"Hm.</think>{SIMPLE}; ", [Reasoning("Hm."), *CALLED]),
        (f"Hm.</think>So {SIMPLE}", [Reasoning("Hm."), Text("So "), *CALLED]),
        ("Hm.</think>\n\nNo call.", [Reasoning("Hm."), Text("\n\nNo call.")]),
        (f"I could call {SIMPLE}", [Reasoning(f"I could call {SIMPLE}")]),
    ],
)
def test_calls_are_found_behind_the_reasoning(text: str, expected: list[ParserEvent]) -> None:
    assert parse(Both(), [text]) == expected
    assert parse(Both(), text) == expected


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["<think>", "</think>", SIMPLE, CALL, "; ", "\n", "<", "é😀", "{"])), st.data()
)
def test_together_they_obey_the_law(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    size = data.draw(st.integers(1, 9))
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert parse(Both(), pieces) == parse(Both(), [text])
