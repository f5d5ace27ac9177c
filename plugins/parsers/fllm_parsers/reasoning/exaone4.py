"""The reasoning of EXAONE 4: ``<think>`` tags, where ``enable_thinking`` asks for it."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class Exaone4Parser(ThinkingParser):
    """The template opens the reasoning if asked, and else closes it; without either, a tag must open it."""

    begins = "before"
    switches = ("enable_thinking",)
