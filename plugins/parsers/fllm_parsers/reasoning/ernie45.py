"""The reasoning of ERNIE 4.5 Thinking: ``</think>`` ends it, ``<response>`` tags stand around the answer."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import Space, ThinkingParser


class Ernie45Parser(ThinkingParser):
    """Each tag stands on a line of its own."""

    tags = ("<response>", "</response>")
    answer_space = Space(start=True, end=True)
