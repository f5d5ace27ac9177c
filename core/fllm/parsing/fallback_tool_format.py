"""The server's own format of calls, for a model whose own format is not known or not declared.

It is an array, ``[{"name": "f", "parameters": {...}}, ...]``, since most models were trained on some form of
it. `fllm.chat.tool_prompt` tells the model so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import asdict

from fllm.chat.tool_prompt import DEFAULT_CALL_FORMAT
from fllm.constraints import AnyOf, Constraint, Regex
from fllm.interfaces import LoadedToolParser
from fllm.parsing.json_scanner import JsonScanner
from fllm.parsing.json_tool_calls import JsonToolCallParser
from fllm.parsing.tool_call_parser import Call
from fllm.structured_output.tool_format import ToolFormat
from fllm.values import Tool

_PLAIN_TEXT = Regex(r"[ \n]{0,4}[^\s\[{`][\s\S]*")
"""Text that does not begin as calls do."""


class FallbackToolFormat(ToolFormat, frozen=True, kw_only=True):
    """A format without a marker: the output consists of calls, or it is text."""

    def within_text(self, tools: Iterable[Tool]) -> Constraint:
        """Return the constraint to text, or to valid calls of these tools."""
        return AnyOf((_PLAIN_TEXT, self.calls(tools)))


FALLBACK_TOOL_FORMAT = FallbackToolFormat(**asdict(DEFAULT_CALL_FORMAT))


class FallbackToolCallParser(JsonToolCallParser):
    """Parses calls in `FALLBACK_TOOL_FORMAT`, also in a code block, at the beginning of the output."""

    tool_format = FALLBACK_TOOL_FORMAT
    skip_before = "[`json"
    skip_after = ",]`}"
    marker_optional = True
    multiple_calls = True

    def parse_body(self, scanner: JsonScanner) -> Sequence[Call]:
        """Return the call, unless the request has tools and none of this name."""
        calls = super().parse_body(scanner)
        return calls if not self.context.tools else [call for call in calls if self.is_tool(call.name)]


FALLBACK_PARSER = LoadedToolParser(factory=FallbackToolCallParser, tool_format=FALLBACK_TOOL_FORMAT)
"""`FallbackToolCallParser`, as plugins' parsers are once they are loaded."""
