"""The reasoning of EXAONE 4: ``<think>`` tags, if the request sets ``enable_thinking``."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Exaone4Parser(ReasoningParserBase):
    """Parses reasoning that the template opens or closes in the prompt; otherwise a tag must open it."""

    initial_state = "before"
    template_flags = ("enable_thinking",)
