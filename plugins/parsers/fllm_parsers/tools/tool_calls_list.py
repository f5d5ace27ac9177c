"""JSON objects in ``<tool_calls>`` tags: a list of Jamba and Hunyuan A13B, a line for each of MiniMax M1."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, json_list


class ToolCallsListParser(JsonToolCallParser):
    """``<tool_calls>[{...}, {...}]</tool_calls>``"""

    opening = ("<tool_calls>",)
    closing = ("</tool_calls>",)
    skip_before = "[,"
    skip_after = "],"
    multiple_calls = True
    tool_format = json_list("<tool_calls>[", "]</tool_calls>", trigger="<tool_calls>")


class MiniMaxM1Parser(JsonToolCallParser):
    """An object on each line; what the model plans while it thinks is no call."""

    opening = ("<tool_calls>",)
    closing = ("</tool_calls>",)
    ignored_section = ("<think>", "</think>")
    multiple_calls = True
    tool_format = json_list("<tool_calls>\n", "\n</tool_calls>", between="\n", trigger="<tool_calls>")
