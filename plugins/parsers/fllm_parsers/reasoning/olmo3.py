"""The reasoning of OLMo 3 Think: ``<think>`` tags in ordinary tokens, the first often in the prompt."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class Olmo3Parser(ReasoningParserBase):
    """White space belongs to what it stands beside."""
