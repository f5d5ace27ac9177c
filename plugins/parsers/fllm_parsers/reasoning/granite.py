"""The reasoning of Granite: introductory sentences in 3.2, ``<think>`` tags in the thinking models."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space
from fllm_parsers.reasoning.call_beginnings import TOOL_CALL


class GraniteParser(ReasoningParserBase):
    """Parses the reasoning and the response of Granite 3.2; the sentence before either may be missing."""

    opening = ("Here is my thought process:", "Here's my thought process:")
    closing = ("Here is my response:", "Here's my response:")
    initial_state = "before"
    stray_markers = "text"


class GraniteThinkingParser(ReasoningParserBase):
    """Parses ``<think>`` tags, of which the prompt has the first; the answer begins on a new line."""

    implicit_end = ("<tool_call>",)
    call_beginnings = TOOL_CALL
    template_flags = ("enable_thinking",)
    answer_space = Space(start=True)
