"""The tool calls of DeepSeek V3 and R1, and of V3.1, between markers that are tokens of their own.

::

    <｜tool▁call▁begin｜>function<｜tool▁sep｜>name\\n```json\\n{...}\\n```<｜tool▁call▁end｜>      V3, R1
    <｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜>                             V3.1
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from fllm.parsing import Call, JsonWithHeader, ToolCallParser, ToolFormat, make_call, split_header

_HEAD = re.compile(r"[^{]*+")
_CALLS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_BEGIN, _SEPARATOR, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


class _DeepSeekParser(ToolCallParser):
    section_markers = _CALLS
    opening = (_BEGIN,)
    closing = (_END,)
    inner_markers = (_SEPARATOR,)

    head: ClassVar[re.Pattern[str]]
    """What is before the arguments, with the name in it."""

    def new_scanner(self) -> JsonWithHeader:
        """The name, and what else is before the arguments; then those."""
        return JsonWithHeader(_HEAD)

    def parse_body(self, body: str) -> Sequence[Call]:
        """The one call."""
        head, arguments = split_header(body)
        name = self.head.fullmatch(head)
        call = make_call(name[1].strip(), arguments) if name else None
        return [call] if call else []


class DeepSeekV3Parser(_DeepSeekParser):
    """The arguments stand in a code block, behind the kind of the tool and its name."""

    head = re.compile(rf"\s*\w*{_SEPARATOR}([^\n]+)\n```(?:json)?\s*")
    skip_after = "`"
    tool_format = ToolFormat(
        before=_CALLS[0],
        begin=f"{_BEGIN}function{_SEPARATOR}",
        middle="\n```json\n",
        end=f"\n```{_END}",
        between="\n",
        after=_CALLS[1],
    )


class DeepSeekV31Parser(_DeepSeekParser):
    """The arguments stand behind the name."""

    head = re.compile(rf"\s*+([^\n]+){_SEPARATOR}\s*+")
    tool_format = ToolFormat(before=_CALLS[0], begin=_BEGIN, middle=_SEPARATOR, end=_END, after=_CALLS[1])
