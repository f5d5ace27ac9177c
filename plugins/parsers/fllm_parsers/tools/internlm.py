"""The tool calls of InternLM 2: ``<|action_start|><|plugin|>``, a JSON object, ``<|action_end|>``."""

from __future__ import annotations

from fllm.parsing import JsonToolCallParser, ToolFormat


class InternLM2Parser(JsonToolCallParser):
    """Parses objects after two markers, between which white space is allowed."""

    section_markers = ("<|action_start|>",)
    opening = ("<|plugin|>",)
    closing = ("<|action_end|>",)
    tool_format = ToolFormat(
        begin='<|action_start|><|plugin|>{"name": "',
        middle='", "parameters": ',
        end="}<|action_end|>",
        trigger="<|action_start|>",
    )
