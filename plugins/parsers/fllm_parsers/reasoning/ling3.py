"""The reasoning of Ling 3 and GigaChat 3.5: ``<think>`` tags, if the request enables them."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase
from fllm_parsers.reasoning.call_beginnings import TOOL_CALL


class Ling3Parser(ReasoningParserBase):
    """Parses reasoning only if the request enables it; tool calls end it, too."""

    implicit_end = ("<tool_call>",)
    call_beginnings = TOOL_CALL
    initial_state = "off"
    template_flags = ("enable_thinking", "thinking")


class GigaChat35Parser(ReasoningParserBase):
    """Parses the reasoning of GigaChat 3.5, whose template has another flag."""

    implicit_end = ("<｜GCML｜tool_calls>",)
    call_beginnings = ((("<｜GCML｜invoke",),),)
    initial_state = "off"
    template_flags = ("reasoning",)
