"""Calls that a request forces from a model whose own way to write them nobody has declared.

``[{"name": "f", "parameters": {...}}, ...]``: an array, as many models were taught in some form.
"""

from __future__ import annotations

from fllm.parsing.json_tool_calls import JsonCallParser, json_list

ARRAY = json_list("[", "]", arguments="parameters")


class ForcedCallsParser(JsonCallParser):
    """Reads what its `format` writes."""

    format = ARRAY
    lead = "["
    trail = ",]"
    bare = True
    repeats = True
