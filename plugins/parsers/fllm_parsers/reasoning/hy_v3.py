"""The reasoning of Tencent's Hy3 and Hy4: ``<think>`` tags whose name may have a suffix of the checkpoint."""

from __future__ import annotations

from fllm.parsing import WORD, ReasoningParserBase

_SUFFIXES = ("", ":opensource", ":6124c78e")
"""Suffixes of published checkpoints."""


class HyV3Parser(ReasoningParserBase):
    """Parses reasoning, unless the prompt closes it; tool calls end it, too."""

    opening = tuple(f"<think{suffix}>" for suffix in _SUFFIXES)
    closing = tuple(f"</think{suffix}>" for suffix in _SUFFIXES)
    implicit_end = tuple(f"<tool_calls{suffix}>" for suffix in _SUFFIXES)
    call_beginnings = (
        (
            tuple(f"<tool_call{suffix}>" for suffix in _SUFFIXES),
            WORD,
            ("<tool_sep", "<arg_key", "</tool_call"),
        ),
    )
