"""The reasoning of MiniMax-M3: ``<mm:think>`` tags, of which either may be in the prompt."""

from __future__ import annotations

from fllm.parsing import WORD, ReasoningParserBase


class MiniMaxM3Parser(ReasoningParserBase):
    """Parses reasoning only after an opening tag: the model decides whether it reasons."""

    opening = ("<mm:think>",)
    closing = ("</mm:think>",)
    implicit_end = ("]<]minimax[>[<tool_call>",)
    call_beginnings = (((']<]minimax[>[<invoke name="',), WORD, ('">',)),)
    initial_state = "before"
