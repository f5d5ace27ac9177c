"""The tool calls of DeepSeek V3 and R1, and of V3.1, whose markers are special tokens.

::

    <｜tool▁call▁begin｜>function<｜tool▁sep｜>name\\n```json\\n{...}\\n```<｜tool▁call▁end｜>      V3, R1
    <｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜>                             V3.1
"""

from __future__ import annotations

import re

from fllm.parsing import HeaderToolCallParser, ToolFormat

_CALLS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_BEGIN, _SEPARATOR, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


class _DeepSeekParser(HeaderToolCallParser):
    section_markers = (_CALLS[0],)
    opening = (_BEGIN,)
    closing = (_END, _CALLS[1])
    inner_markers = (_SEPARATOR,)


class DeepSeekV3Parser(_DeepSeekParser):
    """Parses arguments in a code block, after the kind of the tool and its name."""

    header_pattern = re.compile(rf"\s*\w*{_SEPARATOR}(?P<name>[^\n]+)(?:\n```(?:json)?\s*+(?:```\s*+)?)?+")
    skip_after = "`}"
    tool_format = ToolFormat(
        before=_CALLS[0],
        begin=f"{_BEGIN}function{_SEPARATOR}",
        middle="\n```json\n",
        end=f"\n```{_END}",
        between="\n",
        after=_CALLS[1],
    )


class DeepSeekV31Parser(_DeepSeekParser):
    """Parses arguments that follow the name and a separator."""

    header_pattern = re.compile(rf"\s*+(?P<name>[^\n]+){_SEPARATOR}\s*+")
    tool_format = ToolFormat(before=_CALLS[0], begin=_BEGIN, middle=_SEPARATOR, end=_END, after=_CALLS[1])
