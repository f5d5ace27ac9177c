"""The reasoning of Nemotron 3 and of MiMo: ``<think>`` tags, the first often in the prompt."""

from __future__ import annotations

from fllm.parsing.reasoning_parser import ThinkingParser


class NemotronV3Parser(ThinkingParser):
    """Without ``enable_thinking``, which is on by default, all is answer; calls end the reasoning too."""

    interrupting = ("<tool_call>",)
    switches = ("enable_thinking",)
