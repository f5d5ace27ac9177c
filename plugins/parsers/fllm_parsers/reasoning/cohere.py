"""The reasoning of Cohere's Command models: sections between special tokens.

::

    <|START_THINKING|>reasoning<|END_THINKING|><|START_RESPONSE|>answer<|END_RESPONSE|>        Command A, R7B
    <|START_THINKING|>reasoning<|END_THINKING|><|START_TEXT|>answer<|END_TEXT|>                later ones
"""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class CohereCommand3Parser(ReasoningParserBase):
    """Parses reasoning only after an opening marker. The markers of the answer, or a call, end it, too."""

    opening = ("<|START_THINKING|>",)
    closing = ("<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")
    implicit_end = ("<|START_ACTION|>",)
    call_beginnings = ((("[",), ("{",), ('"tool_call_id"', '"tool_name"')),)
    initial_state = "before"
    stray_markers = "reasoning"


class CohereCommand4Parser(CohereCommand3Parser):
    """Parses the same with other markers around the answer."""

    closing = ("<|END_THINKING|>", "<|START_TEXT|>", "<|END_TEXT|>")
