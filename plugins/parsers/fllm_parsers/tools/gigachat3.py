"""The tool calls of GigaChat 3: a JSON object behind a message's head, or behind ``<|function_call|>``."""

from __future__ import annotations

from fllm.parsing.json_tool_calls import JsonCallParser
from fllm.parsing.tool_format import ToolFormat


class GigaChat3Parser(JsonCallParser):
    """Nothing ends a call but its object, or the end of the answer."""

    around = ("<|message_sep|>", "</s>")
    opening = ("function call<|role_sep|>", "<|function_call|>")
    format = ToolFormat(begin='<|function_call|>{"name": "', middle='", "arguments": ', end="}")
