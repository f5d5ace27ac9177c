"""The tool calls of Phi-4-mini: ``functools[{"name": ..., "arguments": ...}]``."""

from __future__ import annotations

from fllm.parsing.json_tool_calls import JsonCallParser, json_list


class Phi4MiniJsonParser(JsonCallParser):
    """One list of objects."""

    opening = ("functools[",)
    lead = ","
    trail = "],"
    repeats = True
    format = json_list("functools[", "]")
