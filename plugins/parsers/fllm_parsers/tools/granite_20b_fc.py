"""The tool calls of Granite 20B function calling: a JSON object after each ``<function_call>``."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, ToolFormat


class Granite20bFcParser(JsonToolCallParser):
    """Parses objects without closing markers: a call ends with its object."""

    opening = ("<function_call>",)
    tool_format = ToolFormat(
        begin='<function_call> {"name": "',
        middle='", "arguments": ',
        end="}",
        between="\n",
        trigger="<function_call>",
    )
