"""The reasoning of DeepSeek-R1 and its kin: ``<think>why</think>what``; often the prompt opens it."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space

OPEN = "<think>"
CLOSE = "</think>"


class DeepSeekR1Parser(ReasoningParserBase):
    """Text before the first ``</think>`` is reasoning, text after it the answer; no tag is either.

    Neither is trimmed, so reasoning may be white space; only that before an opening ``<think>`` is dropped
    with it. If the prompt ends with ``</think>``, there is no reasoning: the template has closed it for the
    model.
    """

    opening = (OPEN,)
    closing = (CLOSE,)
    answer_space = Space()
