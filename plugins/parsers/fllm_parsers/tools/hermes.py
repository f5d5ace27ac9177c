"""The tool calls of Hermes, and of Qwen 2.5 and 3: JSON objects in ``<tool_call>`` tags."""

from __future__ import annotations

from collections.abc import Sequence

from fllm.calls import Call, CallParser
from fllm.json_calls import read_call
from fllm.json_scanner import JsonScanner
from fllm.tool_format import ToolFormat


class HermesParser(CallParser):
    """One JSON object between each pair of tags."""

    opening = ("<tool_call>",)
    closing = ("</tool_call>",)
    format = ToolFormat(
        begin='<tool_call>\n{"name": "',
        middle='", "arguments": ',
        end="}\n</tool_call>",
        between="\n",
        trigger="<tool_call>",
    )

    def reader(self) -> JsonScanner:
        """The object."""
        return JsonScanner()

    def read(self, body: str) -> Sequence[Call]:
        """Its call."""
        call = read_call(body)
        return [call] if call else []
