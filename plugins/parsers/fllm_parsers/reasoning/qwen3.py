"""The reasoning of Qwen3 and its kin: ``<think>`` tags, and a call may come before the closing one."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Qwen3Parser(ReasoningParserBase):
    """Without ``enable_thinking``, which is on by default, all is answer."""

    implicit_end = ("<tool_call>",)
    template_flags = ("enable_thinking",)


class Holo2Parser(ReasoningParserBase):
    """Holo2, of the Qwen3-VL family, which knows both names of the switch."""

    template_flags = ("thinking", "enable_thinking")
