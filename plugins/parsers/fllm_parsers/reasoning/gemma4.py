"""The reasoning of Gemma 4: a channel named ``thought``, ``<|channel>thought\\nwhy<channel|>what``."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class Gemma4Parser(ThinkingParser):
    """The markers are special tokens; without the opening one, there is no reasoning."""

    opening = ("<|channel>",)
    closing = ("<channel|>",)
    label = "thought\n"
    begins = "before"
    strays = "reasoning"
