"""The reasoning of Granite: in 3.2, a sentence before each part; in the thinking models, ``<think>`` tags."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import Space, ThinkingParser


class GraniteParser(ThinkingParser):
    """Granite 3.2 writes in plain words where its thought and its response begin, or answers at once."""

    opening = ("Here is my thought process:", "Here's my thought process:")
    closing = ("Here is my response:", "Here's my response:")
    begins = "before"
    strays = "text"


class GraniteThinkingParser(ThinkingParser):
    """``<think>`` tags, of which the prompt opens the first; the answer begins on a line of its own."""

    interrupting = ("<tool_call>",)
    switches = ("enable_thinking",)
    answer_space = Space(start=True)
