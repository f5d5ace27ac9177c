"""The reasoning of Granite: in 3.2, a sentence before each part; in the thinking models, ``<think>`` tags."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space


class GraniteParser(ReasoningParserBase):
    """Granite 3.2 writes in plain words where its thought and its response begin, or answers at once."""

    opening = ("Here is my thought process:", "Here's my thought process:")
    closing = ("Here is my response:", "Here's my response:")
    initial_state = "before"
    stray_markers = "text"


class GraniteThinkingParser(ReasoningParserBase):
    """``<think>`` tags, of which the prompt opens the first; the answer begins on a line of its own."""

    implicit_end = ("<tool_call>",)
    template_flags = ("enable_thinking",)
    answer_space = Space(start=True)
