"""The reasoning of DeepSeek-V3.1 and later: as in DeepSeek-R1, but only where the request asks for it."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class DeepSeekV3Parser(ThinkingParser):
    """Without ``thinking``, all is answer."""

    begins = "off"
    switches = ("thinking", "enable_thinking")


class DeepSeekV4Parser(ThinkingParser):
    """Reasons unless told otherwise; calls end the reasoning too."""

    interrupting = ("<｜DSML｜tool_calls>",)
    switches = ("thinking", "enable_thinking")
