"""The reasoning of DeepSeek-R1 and similar models: ``<think>reasoning</think>answer``."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase, Space


class DeepSeekR1Parser(ReasoningParserBase):
    """Parses reasoning up to the first ``</think>``; the template often writes ``<think>`` into the prompt.

    White space is kept, except before an opening ``<think>``. If the prompt ends with ``</think>``, there is
    no reasoning.
    """

    answer_space = Space()
