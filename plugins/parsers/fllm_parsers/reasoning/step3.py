"""The reasoning of Step 3 and 3.5: the prompt opens it, ``</think>`` ends it."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space
from fllm_parsers.reasoning.call_beginnings import TOOL_CALL


class Step3Parser(ReasoningParserBase):
    """Parses reasoning up to the first ``</think>``."""


class Step3p5Parser(ReasoningParserBase):
    """Parses reasoning and drops the line breaks before the closing tag; tool calls end it, too."""

    implicit_end = ("<tool_call>",)
    call_beginnings = TOOL_CALL
    stray_markers = "text"
    reasoning_space = Space(end=True)
