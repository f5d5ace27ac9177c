"""The tool calls of GigaChat 3: a JSON object after the header of a message or ``<|function_call|>``."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, ToolFormat


class GigaChat3Parser(JsonToolCallParser):
    """Parses objects without closing markers: a call ends with its object."""

    section_markers = ("<|message_sep|>", "</s>")
    opening = ("function call<|role_sep|>", "<|function_call|>")
    tool_format = ToolFormat(begin='<|function_call|>{"name": "', middle='", "arguments": ', end="}")
