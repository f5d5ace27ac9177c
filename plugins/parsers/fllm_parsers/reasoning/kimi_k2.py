"""The reasoning of Kimi K2 Thinking: ``<think>`` tags; a section of tool calls ends it, too."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space


class KimiK2Parser(ReasoningParserBase):
    """Parses reasoning and drops the white space that the model writes before the closing tag."""

    implicit_end = ("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>")
    call_beginnings = ((("<|tool_call_begin|>",),),)
    template_flags = ("thinking", "enable_thinking")
    reasoning_space = Space(end=True)
