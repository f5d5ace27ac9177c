"""The reasoning of DeepSeek-V3.1 and later: ``<think>`` tags, if the request enables thinking."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class DeepSeekV3Parser(ReasoningParserBase):
    """Parses reasoning only if the request sets ``thinking``; otherwise, all output is the answer."""

    initial_state = "off"
    template_flags = ("thinking", "enable_thinking")


class DeepSeekV4Parser(ReasoningParserBase):
    """Parses reasoning unless the request turns it off; tool calls end it, too."""

    implicit_end = ("<｜DSML｜tool_calls>", "<｜DSML｜ calls>")
    call_beginnings = ((("<｜DSML｜invoke", "<｜DSML｜ invoke"),),)
    template_flags = ("thinking", "enable_thinking")
