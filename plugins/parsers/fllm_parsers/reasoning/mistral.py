"""The reasoning of Magistral and other models of Mistral: ``[THINK]reasoning[/THINK]answer``."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class MistralParser(ReasoningParserBase):
    """Parses reasoning only after an opening marker; the markers are special tokens."""

    opening = ("[THINK]",)
    closing = ("[/THINK]",)
    initial_state = "before"
    stray_markers = "reasoning"
