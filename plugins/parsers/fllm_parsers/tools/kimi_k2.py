"""The tool calls of Kimi K2.

::

    <|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}<|tool_call_end|>
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

from fllm.interfaces import ParserContext
from fllm.parsing import Call, HeaderToolCallParser, JsonWithHeaderScanner, ToolFormat

_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_BEGIN, _ARGUMENTS, _END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"


class KimiK2Parser(HeaderToolCallParser):
    """Parses calls whose ID holds the name of the function and the number of the call.

    The client receives these IDs, since the chat template identifies the results of calls by them alone.
    """

    section_markers = _SECTION
    opening = (_BEGIN,)
    closing = (_END,)
    inner_markers = (_ARGUMENTS,)
    header_pattern = re.compile(
        rf"\s*(?P<id>(?:functions\.)?(?P<name>[\w./:-]+):\d+)\s*{re.escape(_ARGUMENTS)}\s*"
    )
    # A constrained model writes the number 0 in every call, which is right for the first one only;
    # `parse_body` replaces the others.
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

    def parse_body(self, scanner: JsonWithHeaderScanner) -> Sequence[Call]:
        """Return the call, with a new number in its ID if that ID was used before."""
        return [self._with_unique_id(call) for call in super().parse_body(scanner)]

    def _with_unique_id(self, call: Call) -> Call:
        if call.id in self._ids:
            call = replace(call, id=f"functions.{call.name}:{self.call_count}")
        self._ids.add(call.id)
        return call
