"""Calls that a request forces from a model whose own way to write them nobody has declared.

``[{"name": "f", "parameters": {...}}, ...]``: an array, as many models were taught in some form.
"""

from __future__ import annotations

from fllm.interfaces import LoadedToolParser
from fllm.parsing.json_tool_calls import JsonToolCallParser, json_list

ARRAY = json_list("[", "]", arguments="parameters")


class FallbackToolCallParser(JsonToolCallParser):
    """Reads what its `format` writes."""

    tool_format = ARRAY
    skip_before = "["
    skip_after = ",]"
    marker_optional = True
    multiple_calls = True


FALLBACK_PARSER = LoadedToolParser(factory=FallbackToolCallParser, tool_format=ARRAY)
"""`FallbackToolCallParser`, as plugins' parsers are once they are loaded."""
