"""Calls that a request forces from a model whose own way to write them nobody has declared.

``[{"name": "f", "parameters": {...}}, ...]``: an array, as many models were taught in some form.
"""

from __future__ import annotations

from fllm.json_calls import JsonCallParser
from fllm.tool_format import ToolFormat

ARRAY = ToolFormat(
    before="[", begin='{"name": "', middle='", "parameters": ', end="}", between=", ", after="]"
)


class ForcedCallsParser(JsonCallParser):
    """Reads what its `format` writes."""

    format = ARRAY
    lead = "["
    trail = ",]"
    bare = True
    repeats = True
