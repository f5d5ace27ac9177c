"""The tool calls of InternLM 2: ``<|action_start|><|plugin|>``, a JSON object, ``<|action_end|>``."""

from __future__ import annotations

from fllm.parsing.json_tool_calls import JsonCallParser
from fllm.parsing.tool_format import ToolFormat


class InternLM2Parser(JsonCallParser):
    """White space between the two opening markers is no harm."""

    around = ("<|action_start|>",)
    opening = ("<|plugin|>",)
    closing = ("<|action_end|>",)
    format = ToolFormat(
        begin='<|action_start|><|plugin|>{"name": "',
        middle='", "parameters": ',
        end="}<|action_end|>",
        trigger="<|action_start|>",
    )
