"""The tool calls of OLMo 3: a Python call on each line.

::

    <function_calls>get_weather(city='Paris')
    get_time(zone='CET')</function_calls>
"""

from __future__ import annotations

from fllm.parsing import LiteralToolCallParser, ToolFormat
from fllm.parsing.python_call_scanner import PythonCallScanner
from fllm_parsers.tools.pythonic import PYTHON_ARGUMENTS


class Olmo3Parser(LiteralToolCallParser[PythonCallScanner]):
    """Parses one call after the other following the tag; commas between them are allowed."""

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
        arguments=PYTHON_ARGUMENTS,
    )

    def new_scanner(self) -> PythonCallScanner:
        """Return a scanner of one call."""
        return PythonCallScanner()
