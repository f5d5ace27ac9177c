"""The reasoning of ERNIE 4.5 Thinking: ``</think>`` ends it, ``<response>`` tags stand around the answer."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space


class Ernie45Parser(ReasoningParserBase):
    """Each tag stands on a line of its own."""

    answer_tags = ("<response>", "</response>")
    answer_space = Space(start=True, end=True)
