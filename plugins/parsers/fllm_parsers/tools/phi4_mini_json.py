"""The tool calls of Phi-4-mini: ``functools[{"name": ..., "arguments": ...}]``."""

from __future__ import annotations

from fllm.json_calls import JsonCallParser
from fllm.tool_format import ToolFormat


class Phi4MiniJsonParser(JsonCallParser):
    """One list of objects."""

    opening = ("functools[",)
    lead = ","
    trail = "],"
    repeats = True
    format = ToolFormat(
        before="functools[",
        begin='{"name": "',
        middle='", "arguments": ',
        end="}",
        between=", ",
        after="]",
    )
