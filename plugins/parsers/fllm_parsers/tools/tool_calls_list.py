"""The tool calls of Jamba, Hunyuan A13B and MiniMax M1: JSON objects in ``<tool_calls>`` tags."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, json_list


class ToolCallsListParser(JsonToolCallParser):
    """Parses lists of Jamba and Hunyuan A13B: ``<tool_calls>[{...}, {...}]</tool_calls>``."""

    opening = ("<tool_calls>",)
    closing = ("</tool_calls>",)
    skip_before = "[,"
    skip_after = "],}"
    multiple_calls = True
    tool_format = json_list("<tool_calls>[", "]</tool_calls>", trigger="<tool_calls>")


class MiniMaxM1Parser(JsonToolCallParser):
    """Parses the objects of MiniMax M1, one on each line; objects within its reasoning are not calls."""

    opening = ("<tool_calls>",)
    closing = ("</tool_calls>",)
    ignored_section = ("<think>", "</think>")
    multiple_calls = True
    tool_format = json_list("<tool_calls>\n", "\n</tool_calls>", between="\n", trigger="<tool_calls>")
