"""The tool calls of gpt-oss: messages to ``functions`` in the harmony format.

::

    <|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"Tokyo"}<|call|>

The recipient may also stand before the channel, which may be ``analysis``. The other messages, and what is
between their markers, are the business of the reasoning parser ``openai_gptoss``: to this one they are text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fllm.parsing import Call, JsonWithHeader, ToolCallParser, ToolFormat, make_call, split_header

_HEAD = re.compile(r"[^{]*+")
_NAME = re.compile(
    r"([^\s<]++) *+(?:<\|channel\|>(?:commentary|analysis))? *+"
    r"(?:<\|constrain\|>)? *+\w*+ *+<\|message\|>\s*+"
)


class OpenAIParser(ToolCallParser):
    """A name, what is left of the header, and one JSON object; the marker that ends all may be missing."""

    opening = ("to=functions.",)
    section_markers = ("<|start|>assistant", "<|channel|>commentary", "<|channel|>analysis")
    closing = ("<|call|>", "<|end|>", "<|return|>")
    visible_tokens = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", *closing)
    # The last call has no marker behind it: <|call|> is a stop token.
    tool_format = ToolFormat(
        begin="<|channel|>commentary to=functions.",
        middle=" <|constrain|>json<|message|>",
        end="",
        between="<|call|><|start|>assistant",
    )

    def new_scanner(self) -> JsonWithHeader:
        """The rest of the header; then the arguments."""
        return JsonWithHeader(_HEAD)

    def parse_body(self, body: str) -> Sequence[Call]:
        """The one call."""
        head, arguments = split_header(body)
        name = _NAME.fullmatch(head)
        call = make_call(name[1], arguments) if name else None
        return [call] if call else []
