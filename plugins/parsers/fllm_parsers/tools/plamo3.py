"""The tool calls of PLaMo 3.

::

    <|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>get_weather<|plamo:end_tool_name:plamo|>
    <|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>{"city":"Tokyo"}
    <|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|>
"""

from __future__ import annotations

import re

from fllm.parsing import HeaderToolCallParser, ToolFormat


def _begin(part: str) -> str:
    return f"<|plamo:begin_tool_{part}:plamo|>"


def _end(part: str) -> str:
    return f"<|plamo:end_tool_{part}:plamo|>"


_CONSTRAIN, _MESSAGE = "<|plamo:constrain|>", "<|plamo:msg|>"


class Plamo3Parser(HeaderToolCallParser):
    """Parses a name and a JSON object between markers."""

    section_markers = (_begin("requests"), _begin("request"))
    opening = (_begin("name"),)
    inner_markers = (_end("name"), _begin("arguments"), _CONSTRAIN, _MESSAGE)
    closing = (_end("arguments"), _end("request"), _end("requests"))
    header_pattern = re.compile(
        rf"(?P<name>[^<\n]++){re.escape(_end('name'))}\s*+{re.escape(_begin('arguments'))}\s*+"
        rf"(?:{re.escape(_CONSTRAIN)}\s*+json)?+\s*+(?:{re.escape(_MESSAGE)})?+\s*+"
    )
    tool_format = ToolFormat(
        before=_begin("requests"),
        begin=_begin("request") + _begin("name"),
        middle=f"{_end('name')}{_begin('arguments')}{_CONSTRAIN}json{_MESSAGE}",
        end=_end("arguments") + _end("request"),
        after=_end("requests"),
    )
