"""The tool calls of Kimi K2.

::

    <|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}<|tool_call_end|>
"""

from __future__ import annotations

import re

from fllm.interfaces import ParserContext
from fllm.parsing import HeaderToolCallParser, ToolFormat

_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_SINGULAR_SECTION = ("<|tool_call_section_begin|>", "<|tool_call_section_end|>")
_BEGIN, _ARGUMENTS, _END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"


class KimiK2Parser(HeaderToolCallParser):
    """Parses calls whose ID holds the name of the function and the number of the call.

    The client receives these IDs, since the chat template identifies the results of calls by them alone.
    """

    section_markers = (_SECTION[0], _SINGULAR_SECTION[0])
    opening = (_BEGIN,)
    closing = (_END, _SECTION[1], _SINGULAR_SECTION[1])
    inner_markers = (_ARGUMENTS,)
    header_pattern = re.compile(
        rf"\s*(?P<id>(?:functions\.)?(?P<name>[\w./:-]+):\d+)\s*+(?:{re.escape(_ARGUMENTS)})?\s*+"
    )
    # A constrained model writes the number 0 in every call, which is right for the first one only;
    # `begin_call` replaces the others.
    tool_format = ToolFormat(
        before=_SECTION[0],
        begin=f"{_BEGIN}functions.",
        middle=f":0{_ARGUMENTS}",
        end=_END,
        after=_SECTION[1],
    )

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._ids: set[str | None] = set()

    def begin_call(self, name: str, call_id: str | None = None) -> None:
        """Emit the start of a call, with a new number in its ID if that ID was used before."""
        if call_id in self._ids:
            call_id = f"functions.{name}:{self.call_count}"
        self._ids.add(call_id)
        super().begin_call(name, call_id)
