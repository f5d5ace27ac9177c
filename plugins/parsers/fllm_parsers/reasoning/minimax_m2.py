"""The reasoning of MiniMax-M2: the prompt opens it, ``</think>`` or a tool call ends it."""

from __future__ import annotations

from fllm.parsing import WORD, ReasoningParserBase


class MiniMaxM2Parser(ReasoningParserBase):
    """Parses reasoning that no flag turns off: the model always reasons."""

    implicit_end = ("<minimax:tool_call>",)
    call_beginnings = ((('<invoke name="',), WORD, ('">',)),)
