"""The tool calls of xLAM: a list of JSON objects, bare, in a code block, or after a marker or reasoning."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, json_list


class XlamParser(JsonToolCallParser):
    """Parses a list that is the whole output or the end of it."""

    opening = ("```json", "[TOOL_CALLS]", "<tool_call>")
    closing = ("</tool_call>",)
    ignored_section = ("<think>", "</think>")
    skip_before = "[,"
    skip_after = "],`}"
    multiple_calls = True
    marker_optional = True
    tool_format = json_list("[", "]", trigger='[{"name": "')
