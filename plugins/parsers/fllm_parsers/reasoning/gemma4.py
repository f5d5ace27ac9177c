"""The reasoning of Gemma 4: a channel named ``thought``, ``<|channel>thought\\nwhy<channel|>what``."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Gemma4Parser(ReasoningParserBase):
    """The markers are special tokens; without the opening one, there is no reasoning."""

    opening = ("<|channel>",)
    closing = ("<channel|>",)
    header = "thought\n"
    initial_state = "before"
    stray_markers = "reasoning"
