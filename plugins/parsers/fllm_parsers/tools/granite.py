"""The tool calls of Granite 3: a list of JSON objects after ``<|tool_call|>`` or ``<tool_call>``."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, json_list


class GraniteParser(JsonToolCallParser):
    """Parses lists whose marker may be missing if the list is the whole output."""

    opening = ("<|tool_call|>", "<tool_call>")
    skip_before = "[,"
    skip_after = "],}"
    multiple_calls = True
    marker_optional = True
    tool_format = json_list("<|tool_call|>[", "]", trigger="<|tool_call|>")
