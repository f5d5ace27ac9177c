"""Every tool-call parser emits a call as it arrives."""

from __future__ import annotations

import pytest

from fllm.testing import plugins_with
from fllm.testing.argument_streaming import measure_streaming, write_calls
from fllm_parsers import plugin

PARSERS = plugins_with(plugin, installed=False).tool_parsers


@pytest.mark.parametrize("name", [name for name in PARSERS.names() if name != "raw"])
def test_a_call_begins_early_and_its_argument_never_stalls(name: str) -> None:
    parser = PARSERS.load(name)
    assert parser.tool_format
    measured = measure_streaming(parser, write_calls(parser.tool_format))
    assert measured.first_event <= 0.05
    assert measured.longest_silence <= 64
