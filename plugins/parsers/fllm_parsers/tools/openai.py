"""The tool calls of gpt-oss: messages to ``functions`` in the harmony format.

::

    <|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city":"Tokyo"}<|call|>

The recipient may also precede the channel, which may be ``analysis``. The other messages, and the markers
between them, are handled by the reasoning parser ``openai_gptoss``: to this parser they are text.
"""

from __future__ import annotations

import re

from fllm.parsing import HeaderToolCallParser, ToolFormat


class OpenAIParser(HeaderToolCallParser):
    """Parses a name, the rest of the message header, and one JSON object, with an optional closing marker."""

    opening = ("to=functions.",)
    section_markers = ("<|start|>assistant", "<|channel|>commentary", "<|channel|>analysis")
    closing = ("<|call|>", "<|end|>", "<|return|>")
    visible_tokens = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", *closing)
    header_pattern = re.compile(
        r"(?P<name>[^\s<]++) *+(?:<\|channel\|>(?:commentary|analysis))? *+"
        r"(?:<\|constrain\|>)? *+\w*+ *+<\|message\|>\s*+"
    )
    # No marker ends the last call: <|call|> is a stop token.
    tool_format = ToolFormat(
        begin="<|channel|>commentary to=functions.",
        middle=" <|constrain|>json<|message|>",
        end="",
        between="<|call|><|start|>assistant",
    )
