"""The tool calls of xLAM: a list of JSON objects, bare, in a code block, or behind a marker or reasoning."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, json_list


class XlamParser(JsonToolCallParser):
    """The list is the whole answer, or what ends it."""

    opening = ("```json", "[TOOL_CALLS]", "<tool_call>")
    closing = ("</tool_call>",)
    ignored_section = ("<think>", "</think>")
    skip_before = "[,"
    skip_after = "],`"
    multiple_calls = True
    marker_optional = True
    tool_format = json_list("[", "]", trigger='[{"name": "')
