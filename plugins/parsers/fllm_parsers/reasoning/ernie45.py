"""The reasoning of ERNIE 4.5 Thinking: ``</think>`` ends it, and ``<response>`` tags enclose the answer."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space


class Ernie45Parser(ReasoningParserBase):
    """Parses reasoning and an answer whose tags are on separate lines."""

    answer_tags = ("<response>", "</response>")
    answer_space = Space(start=True, end=True)
