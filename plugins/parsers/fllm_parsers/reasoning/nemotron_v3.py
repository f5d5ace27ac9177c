"""The reasoning of Nemotron 3 and of MiMo: ``<think>`` tags, of which the prompt often has the first."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase
from fllm_parsers.reasoning.call_beginnings import TOOL_CALL


class NemotronV3Parser(ReasoningParserBase):
    """Parses reasoning unless the request sets ``enable_thinking`` to false; tool calls end it, too."""

    implicit_end = ("<tool_call>",)
    call_beginnings = TOOL_CALL
    template_flags = ("enable_thinking",)
