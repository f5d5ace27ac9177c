"""The reasoning of Qwen3 and its kin: ``<think>`` tags, and a call may come before the closing one."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class Qwen3Parser(ThinkingParser):
    """Without ``enable_thinking``, which is on by default, all is answer."""

    interrupting = ("<tool_call>",)
    switches = ("enable_thinking",)


class Holo2Parser(ThinkingParser):
    """Holo2, of the Qwen3-VL family, which knows both names of the switch."""

    switches = ("thinking", "enable_thinking")
