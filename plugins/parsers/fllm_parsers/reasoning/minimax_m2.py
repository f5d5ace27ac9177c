"""The reasoning of MiniMax-M2: the prompt opens it, ``</think>`` or a call ends it."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class MiniMaxM2Parser(ThinkingParser):
    """The model always reasons."""

    interrupting = ("<minimax:tool_call>",)
