"""The reasoning of Magistral and other models of Mistral: ``[THINK]why[/THINK]what``."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class MistralParser(ThinkingParser):
    """The markers are special tokens; without the opening one, there is no reasoning."""

    opening = ("[THINK]",)
    closing = ("[/THINK]",)
    begins = "before"
    strays = "reasoning"
