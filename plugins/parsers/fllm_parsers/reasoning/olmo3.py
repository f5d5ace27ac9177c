"""The reasoning of OLMo 3 Think: ``<think>`` tags of ordinary tokens; the prompt often has the first."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Olmo3Parser(ReasoningParserBase):
    """Parses reasoning and keeps all white space, except a blank answer."""
