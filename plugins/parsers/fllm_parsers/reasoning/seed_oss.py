"""The reasoning of Seed-OSS: ``<seed:think>`` tags, with remarks on its budget in between."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class SeedOssParser(ThinkingParser):
    """What the model says of its budget is a part of its reasoning."""

    opening = ("<seed:think>",)
    closing = ("</seed:think>",)
    interrupting = ("<seed:tool_call>",)
