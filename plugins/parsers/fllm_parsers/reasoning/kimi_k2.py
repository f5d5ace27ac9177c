"""The reasoning of Kimi K2 Thinking: ``<think>`` tags; a section of calls ends it too."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import Space, ThinkingParser


class KimiK2Parser(ThinkingParser):
    """The model writes white space before the closing tag."""

    interrupting = ("<|tool_calls_section_begin|>",)
    switches = ("thinking", "enable_thinking")
    reasoning_space = Space(end=True)
