"""The tool calls of GigaChat 3: a JSON object behind a message's head, or behind ``<|function_call|>``."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, ToolFormat


class GigaChat3Parser(JsonToolCallParser):
    """Nothing ends a call but its object, or the end of the answer."""

    section_markers = ("<|message_sep|>", "</s>")
    opening = ("function call<|role_sep|>", "<|function_call|>")
    tool_format = ToolFormat(begin='<|function_call|>{"name": "', middle='", "arguments": ', end="}")
