"""The reasoning of GLM-4.5 to 4.7: ``<think>`` tags, which the model writes after a line break."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase
from fllm_parsers.reasoning.call_beginnings import TOOL_CALL


class Glm45Parser(ReasoningParserBase):
    """Parses reasoning unless the request sets ``enable_thinking`` to false; tool calls end it, too."""

    implicit_end = ("<tool_call>",)
    call_beginnings = TOOL_CALL
    template_flags = ("enable_thinking",)
