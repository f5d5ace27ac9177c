"""The reasoning of Step 3 and 3.5: the prompt opens it, ``</think>`` ends it."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space


class Step3Parser(ReasoningParserBase):
    """Everything up to the first ``</think>``."""


class Step3p5Parser(ReasoningParserBase):
    """The model writes line breaks before the closing tag."""

    implicit_end = ("<tool_call>",)
    stray_markers = "text"
    reasoning_space = Space(end=True)
