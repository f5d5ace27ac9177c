"""The reasoning of Hunyuan-A13B: ``<think>`` tags around it and ``<answer>`` tags around the answer."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space


class HunyuanA13bParser(ReasoningParserBase):
    """Parses tags on separate lines. They consist of ordinary tokens, so in other places they are text."""

    initial_state = "before"
    stray_markers = "text"
    answer_tags = ("<answer>", "</answer>")
    reasoning_space = Space(start=True, end=True)
    answer_space = Space(start=True, end=True)
