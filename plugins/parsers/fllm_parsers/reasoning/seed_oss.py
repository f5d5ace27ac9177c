"""The reasoning of Seed-OSS: ``<seed:think>`` tags, with remarks on its budget in between."""

from __future__ import annotations

from fllm.parsing import ReasoningParserBase


class SeedOssParser(ReasoningParserBase):
    """What the model says of its budget is a part of its reasoning."""

    opening = ("<seed:think>",)
    closing = ("</seed:think>",)
    implicit_end = ("<seed:tool_call>",)
