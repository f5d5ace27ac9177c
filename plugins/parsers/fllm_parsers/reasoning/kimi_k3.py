"""The reasoning of Kimi K3: an element ``think``, then the answer in an element ``response``.

::

    <|open|>think<|sep|>reasoning<|close|>think<|sep|><|open|>response<|sep|>answer<|close|>response<|sep|>
"""

from __future__ import annotations

from fllm.parsing import WORD, ReasoningParserBase


class KimiK3Parser(ReasoningParserBase):
    """Parses reasoning unless the request turns it off; the answer or a call ends it, too."""

    opening = ("<|open|>think<|sep|>",)
    closing = (
        "<|close|>think<|sep|>",
        "<|open|>response<|sep|>",
        "<|close|>response<|sep|>",
        "<|close|>message<|sep|>",
    )
    implicit_end = ("<|open|>tools<|sep|>",)
    call_beginnings = ((('<|open|>call tool="',), WORD, ('"',)),)
    stray_markers = "reasoning"
    template_flags = ("thinking", "enable_thinking")
    visible_tokens = ("<|open|>", "<|close|>", "<|sep|>")
