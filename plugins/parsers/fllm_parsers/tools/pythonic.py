"""The tool calls of models that write a list of Python calls: ``[get_weather(city='LA'), get_time()]``.

Llama 4 may write ``<|python_start|>`` and ``<|python_end|>`` around the list, LFM 2 writes two other markers,
and Llama 3.2 none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fllm.parsing import Call, ToolCallParser, ToolFormat
from fllm.parsing.argument_constraints import named_arguments, python_value
from fllm.parsing.literal_scanner import json_object
from fllm.parsing.python_call_scanner import PythonCallScanner, PythonListScanner

PYTHON_ARGUMENTS = named_arguments("=", ", ", python_value)


class PythonicParser(ToolCallParser[PythonListScanner]):
    """Parses lists of calls. A list is emitted when it is complete: until then, it may be prose in brackets.

    Within prose, all names in the list must be those of the request's tools, if it has any.
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

    def parse_body(self, scanner: PythonListScanner) -> Sequence[Call]:
        """Return all calls of the list, or none."""
        calls = python_calls(scanner)
        known = {tool.name for tool in self.context.tools}
        any_name = not self.follows_text or not known
        return calls if any_name or all(call.name in known for call in calls) else []


class Llama4PythonicParser(PythonicParser):
    """Parses the same lists, with optional markers around them."""

    section_markers = ("<|python_start|>",)
    closing = ("<|python_end|>",)
    visible_tokens = ("<|python_start|>", "<|python_end|>")


class Lfm2Parser(PythonicParser):
    """Parses the same lists, with markers around them."""

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


def python_calls(scanner: PythonCallScanner) -> list[Call]:
    """Return the calls that ``scanner`` has read."""
    return [Call(name, json_object(arguments)) for name, arguments in scanner.calls]
