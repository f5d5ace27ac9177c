"""The tool calls of models that write a list of Python calls: ``[get_weather(city='LA'), get_time()]``.

Llama 4 may put ``<|python_start|>`` and ``<|python_end|>`` around it, LFM 2 has two markers of its own, and
Llama 3.2 has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fllm.parsing import Call, ToolCallParser, ToolFormat
from fllm.parsing.argument_constraints import named, python_value
from fllm.parsing.literal_reader import json_object
from fllm.parsing.python_call_reader import PythonCallReader, PythonListReader

ARGUMENTS = named("=", ", ", python_value)


class PythonicParser(ToolCallParser):
    """A list is emitted when it is complete: until then, it may be prose in brackets.

    Within prose, all of its names must be those of tools of the request, where it has any.
    """

    opening = ("[",)
    section_markers: ClassVar[Sequence[str]] = ("<|python_tag|>",)
    visible_tokens: ClassVar[Sequence[str]] = ("<|python_tag|>",)
    tool_format = ToolFormat(
        before="[", begin="", middle="(", end=")", between=", ", after="]", arguments=ARGUMENTS
    )

    def new_scanner(self) -> PythonListReader:
        """The calls, and the bracket behind them."""
        return PythonListReader()

    def parse_body(self, body: str) -> Sequence[Call]:
        """All of them, or none."""
        calls = read_calls(body, self.new_scanner())
        known = {tool.name for tool in self.context.tools}
        expected = self._near != "prose" or not known
        return calls if expected or all(call.name in known for call in calls) else []


class Llama4PythonicParser(PythonicParser):
    """The same with markers that may be around the list."""

    section_markers = ("<|python_start|>",)
    closing = ("<|python_end|>",)
    visible_tokens = ("<|python_start|>", "<|python_end|>")


class Lfm2Parser(PythonicParser):
    """The same with markers around the list."""

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
        arguments=ARGUMENTS,
    )


def read_calls(body: str, scanner: PythonCallReader) -> list[Call]:
    """The calls of a body that this reader takes."""
    scanner.feed(body)
    return [Call(name, json_object(arguments)) for name, arguments in scanner.calls]
