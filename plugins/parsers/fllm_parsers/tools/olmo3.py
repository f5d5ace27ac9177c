"""The tool calls of OLMo 3: a Python call on each line.

::

    <function_calls>get_weather(city='Paris')
    get_time(zone='CET')</function_calls>
"""

from __future__ import annotations

from collections.abc import Sequence

from fllm.parsing.python_call_reader import PythonCallReader
from fllm.parsing.tool_call_parser import Call, CallParser
from fllm.parsing.tool_format import ToolFormat
from fllm_parsers.tools.pythonic import ARGUMENTS, read_calls


class Olmo3Parser(CallParser):
    """One call after the other behind the tag; commas may be between them."""

    opening = ("<function_calls>",)
    closing = ("</function_calls>",)
    lead = ","
    repeats = True
    format = ToolFormat(
        before="<function_calls>",
        begin="",
        middle="(",
        end=")",
        between="\n",
        after="</function_calls>",
        arguments=ARGUMENTS,
    )

    def reader(self) -> PythonCallReader:
        """One call."""
        return PythonCallReader()

    def read(self, body: str) -> Sequence[Call]:
        """That call."""
        return read_calls(body, self.reader())
