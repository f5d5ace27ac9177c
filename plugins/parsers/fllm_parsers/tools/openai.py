"""The tool calls of gpt-oss: messages to ``functions`` in the harmony format.

::

    <|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"Tokyo"}<|call|>

The recipient may also stand before the channel, which may be ``analysis``. The other messages, and what is
between their markers, are the business of the reasoning parser ``openai_gptoss``: to this one they are text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fllm.parsing.json_tool_calls import HeadedJson, named, split_head
from fllm.parsing.tool_call_parser import Call, CallParser
from fllm.parsing.tool_format import ToolFormat

_HEAD = re.compile(r"[^{]*+")
_NAME = re.compile(
    r"([^\s<]++) *+(?:<\|channel\|>(?:commentary|analysis))? *+"
    r"(?:<\|constrain\|>)? *+\w*+ *+<\|message\|>\s*+"
)


class OpenAIParser(CallParser):
    """A name, what is left of the header, and one JSON object; the marker that ends all may be missing."""

    opening = ("to=functions.",)
    around = ("<|start|>assistant", "<|channel|>commentary", "<|channel|>analysis")
    closing = ("<|call|>", "<|end|>", "<|return|>")
    visible_tokens = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", *closing)
    # The last call has no marker behind it: <|call|> is a stop token.
    format = ToolFormat(
        begin="<|channel|>commentary to=functions.",
        middle=" <|constrain|>json<|message|>",
        end="",
        between="<|call|><|start|>assistant",
    )

    def reader(self) -> HeadedJson:
        """The rest of the header; then the arguments."""
        return HeadedJson(_HEAD)

    def read(self, body: str) -> Sequence[Call]:
        """The one call."""
        head, arguments = split_head(body)
        name = _NAME.fullmatch(head)
        call = named(name[1], arguments) if name else None
        return [call] if call else []
