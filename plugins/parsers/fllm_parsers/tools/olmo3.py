"""The tool calls of OLMo 3: a Python call on each line.

::

    <function_calls>get_weather(city='Paris')
    get_time(zone='CET')</function_calls>
"""

from __future__ import annotations

from collections.abc import Sequence

from fllm.parsing import Call, ToolCallParser, ToolFormat
from fllm.parsing.python_call_reader import PythonCallReader
from fllm_parsers.tools.pythonic import ARGUMENTS, read_calls


class Olmo3Parser(ToolCallParser):
    """One call after the other behind the tag; commas may be between them."""

    opening = ("<function_calls>",)
    closing = ("</function_calls>",)
    skip_before = ","
    multiple_calls = True
    tool_format = ToolFormat(
        before="<function_calls>",
        begin="",
        middle="(",
        end=")",
        between="\n",
        after="</function_calls>",
        arguments=ARGUMENTS,
    )

    def new_scanner(self) -> PythonCallReader:
        """One call."""
        return PythonCallReader()

    def parse_body(self, body: str) -> Sequence[Call]:
        """That call."""
        return read_calls(body, self.new_scanner())
