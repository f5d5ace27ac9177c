"""The reasoning of MiniCPM5 and MiniCPM-V: ``<think>`` tags, if the request or the model wants them."""

from __future__ import annotations

from fllm.parsing import WORD, ReasoningParserBase
from fllm_parsers.reasoning.call_beginnings import TOOL_CALL


class MiniCPMVParser(ReasoningParserBase):
    """Parses reasoning only after an opening tag; tool calls end it, too."""

    implicit_end = ("<tool_call>", "<function name=")
    call_beginnings = (*TOOL_CALL, (('"',), WORD, ('">',)))
    initial_state = "before"
    template_flags = ("enable_thinking",)
