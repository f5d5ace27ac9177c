"""The reasoning of Gemma 4: a channel ``thought``, ``<|channel>thought\\nreasoning<channel|>answer``."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Gemma4Parser(ReasoningParserBase):
    """Parses reasoning only after an opening marker; the markers are special tokens."""

    opening = ("<|channel>",)
    closing = ("<channel|>",)
    header = "thought\n"
    initial_state = "before"
    stray_markers = "reasoning"
