"""Calls that are cut off anywhere, in the format of every tool-call parser."""

from __future__ import annotations

import json

import pytest
from support.parsed_calls import parse_calls

from fllm.testing import plugins_with
from fllm.testing.argument_streaming import WRITE_FILE, write_calls
from fllm_parsers import plugin

PARSERS = plugins_with(plugin, installed=False).tool_parsers
NAMES = [name for name in PARSERS.names() if PARSERS.load(name).tool_format]
EITHER = {
    "llama3_json": '{"name": "',
    "llama4_json": '{"name": "',
    "xlam": '[{"name": "',
    "pythonic": "[",
    "llama4_pythonic": "[",
}
"""How calls without a marker begin: up to the name of a tool, it may also be text."""
NOT_READ = [("xlam", "Noted.\n")]
"""Where text precedes a call that must not follow any."""


@pytest.mark.parametrize(
    ("name", "before"),
    [(name, before) for name in NAMES for before in ("", "Noted.\n") if (name, before) not in NOT_READ],
)
def test_what_came_of_a_call_is_the_call_and_nothing_of_it_is_text(name: str, before: str) -> None:
    parser = PARSERS.load(name)
    declared = parser.tool_format
    assert declared
    calls = write_calls(declared, "two li", count=2)
    _, whole = parse_calls(parser, calls, tools=[WRITE_FILE])
    assert [json.loads(arguments) for _, arguments in whole] == [json.loads(whole[0][1])] * 2
    marker = declared.trigger or declared.before or declared.begin
    undecided = EITHER[name] + "write_file" if name in EITHER else marker[:-1]
    for cut in range(len(calls) + 1):
        text, found = parse_calls(parser, before + calls[:cut], tools=[WRITE_FILE])
        left = text.removeprefix(before.rstrip()).strip()
        assert undecided.startswith(left), (calls[:cut], text)
        assert not left or not found
        for (called, arguments), (expected, all_arguments) in zip(found, whole, strict=False):
            assert called == expected
            assert all_arguments.startswith(arguments)
        if cut % 10 == 0:
            assert (text, found) == parse_calls(parser, *before + calls[:cut], tools=[WRITE_FILE])


@pytest.mark.parametrize("name", NAMES)
def test_all_of_the_arguments_that_came_are_there(name: str) -> None:
    parser = PARSERS.load(name)
    assert parser.tool_format
    calls = write_calls(parser.tool_format, "two litres of milk")
    _, [(_, arguments)] = parse_calls(parser, calls[: calls.index("milk") + 2], tools=[WRITE_FILE])
    assert arguments.endswith("two litres of mi")
