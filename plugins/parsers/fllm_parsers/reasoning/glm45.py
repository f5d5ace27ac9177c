"""The reasoning of GLM-4.5 to 4.7: ``<think>`` tags, written by the model itself after a line break."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Glm45Parser(ReasoningParserBase):
    """Without ``enable_thinking``, which is on by default, all is answer."""

    implicit_end = ("<tool_call>",)
    template_flags = ("enable_thinking",)
