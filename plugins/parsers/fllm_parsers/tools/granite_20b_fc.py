"""The tool calls of Granite 20B function calling: a JSON object behind each ``<function_call>``."""

from __future__ import annotations

from fllm.parsing.json_tool_calls import JsonCallParser
from fllm.parsing.tool_format import ToolFormat


class Granite20bFcParser(JsonCallParser):
    """Nothing ends a call but its object."""

    opening = ("<function_call>",)
    format = ToolFormat(
        begin='<function_call> {"name": "',
        middle='", "arguments": ',
        end="}",
        between="\n",
        trigger="<function_call>",
    )
