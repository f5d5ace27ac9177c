"""The reasoning of Tencent's Hy3 and Hy4: ``<think>`` tags whose name may have a suffix of the checkpoint."""

from __future__ import annotations

from fllm.parsing import WORD, ReasoningParserBase


class HyV3Parser(ReasoningParserBase):
    """Parses reasoning, unless the prompt closes it; tool calls end it, too."""

    opening = ("<think>", "<think:opensource>")
    closing = ("</think>", "</think:opensource>")
    implicit_end = ("<tool_calls>", "<tool_calls:opensource>")
    call_beginnings = (
        (("<tool_call>", "<tool_call:opensource>"), WORD, ("<tool_sep", "<arg_key", "</tool_call")),
    )
