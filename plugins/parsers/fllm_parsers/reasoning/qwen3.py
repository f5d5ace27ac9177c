"""The reasoning of Qwen3 and similar models: ``<think>`` tags; a tool call may replace the closing one."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase
from fllm_parsers.reasoning.call_beginnings import TOOL_CALL


class Qwen3Parser(ReasoningParserBase):
    """Parses reasoning unless the request sets ``enable_thinking`` to false; tool calls end it, too."""

    implicit_end = ("<tool_call>",)
    call_beginnings = TOOL_CALL
    template_flags = ("enable_thinking",)


class Holo2Parser(ReasoningParserBase):
    """Parses the reasoning of Holo2, of the Qwen3-VL family, whose template uses either name of the flag."""

    template_flags = ("thinking", "enable_thinking")
