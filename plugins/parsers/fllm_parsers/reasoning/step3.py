"""The reasoning of Step 3 and 3.5: the prompt opens it, ``</think>`` ends it."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import Space, ThinkingParser


class Step3Parser(ThinkingParser):
    """Everything up to the first ``</think>``."""


class Step3p5Parser(ThinkingParser):
    """The model writes line breaks before the closing tag."""

    interrupting = ("<tool_call>",)
    strays = "text"
    reasoning_space = Space(end=True)
