"""The reasoning of GLM-4.5 to 4.7: ``<think>`` tags, written by the model itself after a line break."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class Glm45Parser(ThinkingParser):
    """Without ``enable_thinking``, which is on by default, all is answer."""

    interrupting = ("<tool_call>",)
    switches = ("enable_thinking",)
