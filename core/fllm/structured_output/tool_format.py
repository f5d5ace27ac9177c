"""The format in which a family of models writes tool calls, which a parser declares for constrained decoding.

::

    before  call  between  call ...  after         a call: begin  name  middle  arguments  end
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from fllm.constraints import (
    ANY_OBJECT,
    AnyOf,
    Concat,
    Constraint,
    ConstString,
    JsonSchema,
    Repeat,
    Tag,
    TriggeredTags,
)
from fllm.values import Tool


def json_arguments(tool: Tool) -> Constraint:
    """Return the constraint to one JSON object that the schema of the tool allows."""
    if not tool.parameters:
        return ANY_OBJECT
    return JsonSchema(msgspec.json.encode(tool.parameters).decode(), tool.lenient)


class ToolFormat(Struct, frozen=True, kw_only=True):
    """The format of tool calls that a parser declares as ``tool_format``. The same parser must parse it."""

    begin: str
    middle: str
    end: str
    before: str = ""
    """Text that precedes the first call."""
    between: str = ""
    """Text between two calls."""
    after: str = ""
    """Text that follows the last call."""
    trigger: str = ""
    """The beginning of ``before`` or, if that is empty, of ``begin``, after which only calls are allowed.

    The default, an empty text, means all of it.
    """
    arguments: Callable[[Tool], Constraint] = json_arguments
    """Returns the constraint on the arguments of a tool."""

    def calls(self, tools: Iterable[Tool], *, max_calls: int | None = None) -> Constraint:
        """Return the constraint to calls of these tools only: at least one, at most ``max_calls``."""
        calls = self._calls(tools, max_calls)
        return Concat((ConstString(self.before), calls, ConstString(self.after)))

    def within_text(self, tools: Iterable[Tool]) -> Constraint:
        """Return a constraint that allows any text, but only valid calls of these tools after `trigger`."""
        tags = tuple(Tag(self._call_start(tool), self.arguments(tool), self.end) for tool in tools)
        if self.before:
            tags = (Tag(self.before, self._calls(tools, None), self.after),)
        return TriggeredTags(triggers=(self.trigger or self.before or self.begin,), tags=tags)

    def _calls(self, tools: Iterable[Tool], max_calls: int | None) -> Constraint:
        call = AnyOf(tuple(self._call(tool) for tool in tools))
        return Repeat(item=call, separator=self.between, max=max_calls)

    def _call(self, tool: Tool) -> Constraint:
        return Concat((ConstString(self._call_start(tool)), self.arguments(tool), ConstString(self.end)))

    def _call_start(self, tool: Tool) -> str:
        return f"{self.begin}{tool.name}{self.middle}"
