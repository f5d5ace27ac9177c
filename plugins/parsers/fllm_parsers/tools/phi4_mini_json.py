"""The tool calls of Phi-4-mini: ``functools[{"name": ..., "arguments": ...}]``."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, json_list


class Phi4MiniJsonParser(JsonToolCallParser):
    """Parses one list of objects."""

    opening = ("functools[",)
    skip_before = ","
    skip_after = "],}"
    multiple_calls = True
    tool_format = json_list("functools[", "]")
