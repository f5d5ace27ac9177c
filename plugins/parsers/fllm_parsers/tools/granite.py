"""The tool calls of Granite 3: a list of JSON objects behind ``<|tool_call|>`` or ``<tool_call>``."""

from __future__ import annotations

from fllm.parsing.json_tool_calls import JsonCallParser, json_list


class GraniteParser(JsonCallParser):
    """The marker may be missing where the list is all there is."""

    opening = ("<|tool_call|>", "<tool_call>")
    lead = "[,"
    trail = "],"
    repeats = True
    bare = True
    format = json_list("<|tool_call|>[", "]", trigger="<|tool_call|>")
