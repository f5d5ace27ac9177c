"""The reasoning of PLaMo 3: ``<|plamo:begin_think:plamo|>reasoning<|plamo:end_think:plamo|>answer``."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Plamo3Parser(ReasoningParserBase):
    """Parses reasoning up to its end; tool calls end it, too."""

    opening = ("<|plamo:begin_think:plamo|>",)
    closing = ("<|plamo:end_think:plamo|>",)
    implicit_end = ("<|plamo:begin_tool_requests:plamo|>",)
    call_beginnings = ((("<|plamo:begin_tool_request:plamo|>",),),)
    stray_markers = "reasoning"
