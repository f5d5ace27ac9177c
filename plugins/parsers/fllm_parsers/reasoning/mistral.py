"""The reasoning of Magistral and other models of Mistral: ``[THINK]why[/THINK]what``."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class MistralParser(ReasoningParserBase):
    """The markers are special tokens; without the opening one, there is no reasoning."""

    opening = ("[THINK]",)
    closing = ("[/THINK]",)
    initial_state = "before"
    stray_markers = "reasoning"
