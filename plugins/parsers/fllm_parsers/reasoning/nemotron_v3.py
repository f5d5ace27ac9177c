"""The reasoning of Nemotron 3 and of MiMo: ``<think>`` tags, of which the prompt often has the first."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class NemotronV3Parser(ReasoningParserBase):
    """Parses reasoning unless the request sets ``enable_thinking`` to false; tool calls end it, too."""

    implicit_end = ("<tool_call>",)
    template_flags = ("enable_thinking",)
