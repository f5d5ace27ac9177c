"""The tool calls of Functionary v3.1: ``<function=get_weather>{"city": "Tokyo"}</function>``.

Llama 3.1 writes them too where the system prompt describes this format. Calls follow one another, and text
may come before, between and after them. Models forget the closing tag at the end of an answer, so that an
object behind an opening tag is a call already; a tag without one, or with one that breaks off, is text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fllm.parsing import Call, JsonWithHeader, ToolCallParser, ToolFormat, make_call, split_header

# OpenAI's names have at most 64 of these characters.
_NAME = re.compile(r"([\w.-]{1,64})>\s*", re.ASCII)


class FunctionaryParser(ToolCallParser):
    """A name and the arguments behind each opening tag; `ToolCallParser` does the rest."""

    opening = ("<function=",)
    closing = ("</function>",)
    tool_format = ToolFormat(begin="<function=", middle=">", end="</function>")

    def new_scanner(self) -> JsonWithHeader:
        """Up to the end of the object."""
        return JsonWithHeader(re.compile(r"[\w.>\s-]*+"))

    def parse_body(self, body: str) -> Sequence[Call]:
        """The one call; none, where what is before the object is no name."""
        head, arguments = split_header(body)
        name = _NAME.fullmatch(head)
        call = make_call(name[1], arguments) if name else None
        return [call] if call else []
