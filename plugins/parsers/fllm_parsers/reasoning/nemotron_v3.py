"""The reasoning of Nemotron 3 and of MiMo: ``<think>`` tags, the first often in the prompt."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class NemotronV3Parser(ReasoningParserBase):
    """Without ``enable_thinking``, which is on by default, all is answer; calls end the reasoning too."""

    implicit_end = ("<tool_call>",)
    template_flags = ("enable_thinking",)
