"""The IDs of Kimi K2's calls, by which its chat template identifies their results."""

from __future__ import annotations

import pytest

from fllm import ParserContext, ToolStart
from fllm.testing import parse
from fllm_parsers.tools.kimi_k2 import KimiK2Parser


def written(*ids: str) -> str:
    calls = (f"<|tool_call_begin|>{one}<|tool_call_argument_begin|>{{}}<|tool_call_end|>" for one in ids)
    return f"<|tool_calls_section_begin|>{''.join(calls)}<|tool_calls_section_end|>"


@pytest.mark.parametrize(
    ("ids", "given"),
    [
        (["functions.a:3", "functions.b:4"], ["functions.a:3", "functions.b:4"]),
        (["functions.a:0", "functions.b:0"], ["functions.a:0", "functions.b:0"]),
        (["functions.a:0"] * 3, ["functions.a:0", "functions.a:1", "functions.a:2"]),
        (["functions.a.b/c:d:0"], ["functions.a.b/c:d:0"]),
    ],
)
def test_every_call_has_an_id_of_its_own(ids: list[str], given: list[str]) -> None:
    events = parse(KimiK2Parser(ParserContext()), written(*ids))
    assert [event.id for event in events if isinstance(event, ToolStart)] == given
