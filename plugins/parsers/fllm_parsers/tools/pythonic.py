"""The tool calls of models that write a list of Python calls: ``[get_weather(city='LA'), get_time()]``.

Llama 4 may write ``<|python_start|>`` and ``<|python_end|>`` around the list, LFM 2 writes two other markers,
and Llama 3.2 none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fllm.interfaces import ParserContext
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

    Models repeat the list after the closing marker: without an opening marker, the same list is dropped, and
    another one is text.
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

    def __init__(self, context: ParserContext) -> None:
        super().__init__(context)
        self._written: list[tuple[str, str]] = []
        """The names and arguments of the calls so far."""
        self._repeats = False
        """Whether the current list may only repeat the previous one."""

    def may_begin(self, marker: str) -> bool:  # noqa: ARG002  there is only one
        """Return whether a list may begin here: not in text after a call, unless a marker precedes."""
        return not self.call_count or self.follows_call or self.section_markers[0] in self.pending_markers

    def new_scanner(self) -> PythonListScanner:
        """Return a scanner of the calls and the closing bracket."""
        self._repeats = self.follows_call and self.section_markers[0] not in self.pending_markers
        return super().new_scanner()

    def is_certain(self, scanner: PythonListScanner) -> bool:
        """Return whether the first call is one of a tool of the request, and no repetition."""
        return not self._repeats and super().is_certain(scanner)

    def parse_body(self, scanner: PythonListScanner) -> Sequence[Call]:
        """Return all calls of the list, or none; those of a repeated list are not emitted."""
        calls = super().parse_body(scanner)
        again = [(call.name, call.arguments) for call in calls]
        return [] if self._repeats and again != self._written[-len(again) :] else calls

    def begin_call(self, name: str, call_id: str | None = None) -> None:
        """Emit the start of a call that is not a repetition."""
        if not self._repeats:
            self._written.append((name, ""))
            super().begin_call(name, call_id)

    def add_arguments(self, text: str) -> None:
        """Emit a piece of the arguments of a call that is not a repetition."""
        if not self._repeats:
            name, arguments = self._written[-1]
            self._written[-1] = name, arguments + text
            super().add_arguments(text)
