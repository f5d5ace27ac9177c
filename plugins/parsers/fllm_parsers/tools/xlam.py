"""The tool calls of xLAM: a list of JSON objects, bare, in a code block, or behind a marker or reasoning."""

from __future__ import annotations

from fllm.parsing.json_tool_calls import JsonCallParser, json_list


class XlamParser(JsonCallParser):
    """The list is the whole answer, or what ends it."""

    opening = ("```json", "[TOOL_CALLS]", "<tool_call>")
    closing = ("</tool_call>",)
    aside = ("<think>", "</think>")
    lead = "[,"
    trail = "],`"
    repeats = True
    bare = True
    format = json_list("[", "]", trigger='[{"name": "')
