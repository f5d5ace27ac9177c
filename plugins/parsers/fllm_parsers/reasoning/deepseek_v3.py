"""The reasoning of DeepSeek-V3.1 and later: as in DeepSeek-R1, but only where the request asks for it."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class DeepSeekV3Parser(ReasoningParserBase):
    """Without ``thinking``, all is answer."""

    initial_state = "off"
    template_flags = ("thinking", "enable_thinking")


class DeepSeekV4Parser(ReasoningParserBase):
    """Reasons unless told otherwise; calls end the reasoning too."""

    implicit_end = ("<｜DSML｜tool_calls>",)
    template_flags = ("thinking", "enable_thinking")
