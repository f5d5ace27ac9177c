"""The reasoning of Seed-OSS: ``<seed:think>`` tags, with notes on the budget between them."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase
from fllm_parsers.reasoning.call_beginnings import FUNCTION


class SeedOssParser(ReasoningParserBase):
    """Parses reasoning, which includes the notes of the model on its budget."""

    opening = ("<seed:think>",)
    closing = ("</seed:think>",)
    implicit_end = ("<seed:tool_call>",)
    call_beginnings = (FUNCTION,)
