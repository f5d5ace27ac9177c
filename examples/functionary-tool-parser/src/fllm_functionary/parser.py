"""The tool calls of Functionary v3.1: ``<function=get_weather>{"city": "Tokyo"}</function>``.

Llama 3.1 writes them too if the system prompt describes this format. Text may come before, between and after
calls. Models forget the closing tag at the end of their output, so an object after an opening tag is enough
for a call, and one that is cut off is a call with its arguments up to there. A tag without an object is text.
"""

from __future__ import annotations

import re

from fllm.parsing import HeaderToolCallParser, ToolFormat


class FunctionaryParser(HeaderToolCallParser):
    """Parses a name and a JSON object after each opening tag."""

    opening = ("<function=",)
    closing = ("</function>",)
    # OpenAI's function names have at most 64 of these characters.
    header_pattern = re.compile(r"(?P<name>[\w.-]{1,64})>\s*", re.ASCII)
    header_characters = re.compile(r"[\w.>\s-]*+")
    tool_format = ToolFormat(begin="<function=", middle=">", end="</function>")
