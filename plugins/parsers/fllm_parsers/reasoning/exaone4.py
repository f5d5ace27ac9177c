"""The reasoning of EXAONE 4: ``<think>`` tags, where ``enable_thinking`` asks for it."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Exaone4Parser(ReasoningParserBase):
    """The template opens the reasoning if asked, and else closes it; without either, a tag must open it."""

    initial_state = "before"
    template_flags = ("enable_thinking",)
