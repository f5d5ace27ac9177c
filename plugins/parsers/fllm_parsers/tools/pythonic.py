"""The tool calls of models that write a list of Python calls: ``[get_weather(city='LA'), get_time()]``.

Llama 4 may write ``<|python_start|>`` and ``<|python_end|>`` around the list, LFM 2 writes two other markers,
and Llama 3.2 none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fllm.parsing import Call, LiteralToolCallParser, ToolFormat
from fllm.parsing.argument_constraints import named_arguments, python_value
from fllm.parsing.python_call_scanner import PythonListScanner

PYTHON_ARGUMENTS = named_arguments("=", ", ", python_value)


class PythonicParser(LiteralToolCallParser[PythonListScanner]):
    """Parses lists of calls. A list whose first call is one of a tool is emitted as it arrives.

    Any other list may be prose in brackets until it is complete. Within prose, all names in it must be those
    of the request's tools, if it has any.
    """

    opening = ("[",)
    section_markers: ClassVar[Sequence[str]] = ("<|python_tag|>",)
    visible_tokens: ClassVar[Sequence[str]] = ("<|python_tag|>",)
    tool_format = ToolFormat(
        before="[", begin="", middle="(", end=")", between=", ", after="]", arguments=PYTHON_ARGUMENTS
    )

    def new_scanner(self) -> PythonListScanner:
        """Return a scanner of the calls and the closing bracket."""
        return PythonListScanner()

    def is_certain(self, scanner: PythonListScanner) -> bool:
        """Return whether the first call is one of a tool of the request."""
        return self.is_tool(scanner.calls[0].name)

    def parse_body(self, scanner: PythonListScanner) -> Sequence[Call]:
        """Return all calls of the list, or none."""
        calls = super().parse_body(scanner)
        any_name = not self.follows_text or not self.context.tools
        return calls if any_name or all(self.is_tool(call.name) for call in calls) else []


class Llama4PythonicParser(PythonicParser):
    """Parses the same lists, with optional markers around them."""

    section_markers = ("<|python_start|>",)
    closing = ("<|python_end|>",)
    visible_tokens = ("<|python_start|>", "<|python_end|>")


class Lfm2Parser(PythonicParser):
    """Parses the same lists, with markers around them.

    Models repeat the list after the closing marker: without an opening marker, it is not a second call.
    """

    section_markers = ("<|tool_call_start|>",)
    closing = ("<|tool_call_end|>",)
    visible_tokens = ("<|tool_call_start|>", "<|tool_call_end|>")
    tool_format = ToolFormat(
        before="<|tool_call_start|>[",
        begin="",
        middle="(",
        end=")",
        between=", ",
        after="]<|tool_call_end|>",
        trigger="<|tool_call_start|>",
        arguments=PYTHON_ARGUMENTS,
    )

    def may_begin(self, marker: str) -> bool:  # noqa: ARG002  there is only one
        """Return whether no call precedes, or an opening marker does."""
        return not self.call_count or self.section_markers[0] in self.pending_markers
