"""The reasoning of Apertus: ``<|inner_prefix|>reasoning<|inner_suffix|>answer``."""

from __future__ import annotations

from fllm.parsing import WORD, ReasoningParserBase


class ApertusParser(ReasoningParserBase):
    """Parses reasoning only after an opening marker; tool calls end it, too."""

    opening = ("<|inner_prefix|>",)
    closing = ("<|inner_suffix|>",)
    implicit_end = ("<|tools_prefix|>",)
    call_beginnings = ((("[",), ("{",), ('"',), WORD, ('"',)),)
    initial_state = "before"
