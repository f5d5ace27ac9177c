"""The tool calls of Kimi K2.

::

    <|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}<|tool_call_end|>
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fllm.interfaces import ParserContext
from fllm.parsing import Call, JsonWithHeader, ToolCallParser, ToolFormat, make_call, split_header

_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_BEGIN, _ARGUMENTS, _END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"

_HEAD = re.compile(r"[^{]*+")
_ID = re.compile(rf"\s*((?:functions\.)?([\w./:-]+):\d+)\s*{re.escape(_ARGUMENTS)}\s*")


class KimiK2Parser(ToolCallParser):
    """The name stands in the call's id, before the number of the call.

    The chat template has nothing but the id to say whose result a tool's message is, so the client gets it.
    """

    section_markers = _SECTION
    opening = (_BEGIN,)
    closing = (_END,)
    inner_markers = (_ARGUMENTS,)
    # Every call gets the number 0 here, which is right for the first; `parse_body` counts on.
    tool_format = ToolFormat(
        before=_SECTION[0],
        begin=f"{_BEGIN}functions.",
        middle=f":0{_ARGUMENTS}",
        end=_END,
        after=_SECTION[1],
    )

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._ids: set[str] = set()

    def new_scanner(self) -> JsonWithHeader:
        """The id, then the arguments."""
        return JsonWithHeader(_HEAD)

    def parse_body(self, body: str) -> Sequence[Call]:
        """The one call; one whose id was given before gets its own number in it."""
        head, arguments = split_header(body)
        if not (found := _ID.fullmatch(head)):
            return []
        call_id, name = found.groups()
        if call_id in self._ids:
            call_id = f"functions.{name}:{self._calls}"
        call = make_call(name, arguments, call_id)
        self._ids.add(call_id)
        return [call] if call else []
