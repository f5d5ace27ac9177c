"""The format of calls that a request forces from a model whose own format is not declared.

It is an array, ``[{"name": "f", "parameters": {...}}, ...]``, since most models were trained on some form of
it.
"""

from __future__ import annotations

from fllm.interfaces import LoadedToolParser
from fllm.parsing.json_tool_calls import JsonToolCallParser, json_list

FALLBACK_TOOL_FORMAT = json_list("[", "]", arguments="parameters")


class FallbackToolCallParser(JsonToolCallParser):
    """Parses calls in `FALLBACK_TOOL_FORMAT`."""

    tool_format = FALLBACK_TOOL_FORMAT
    skip_before = "["
    skip_after = ",]"
    marker_optional = True
    multiple_calls = True


FALLBACK_PARSER = LoadedToolParser(factory=FallbackToolCallParser, tool_format=FALLBACK_TOOL_FORMAT)
"""`FallbackToolCallParser`, as plugins' parsers are once they are loaded."""
