"""How the models of a family write their tool calls; a parser declares it, so that calls can be constrained.

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
    """The arguments as one JSON object that the tool's schema allows."""
    return JsonSchema(msgspec.json.encode(tool.parameters).decode()) if tool.parameters else ANY_OBJECT


class ToolFormat(Struct, frozen=True, kw_only=True):
    """The class attribute ``tool_format`` of a tool-call parser, which reads what this writes."""

    begin: str
    middle: str
    end: str
    before: str = ""
    """Stands once, before the first call."""
    between: str = ""
    after: str = ""
    """Stands once, after the last call."""
    trigger: str = ""
    """Where this beginning of ``before``, or else of ``begin``, stands, calls begin; empty: all of it."""
    arguments: Callable[[Tool], Constraint] = json_arguments
    """The language of a tool's arguments."""

    def calls(self, tools: Iterable[Tool], *, most: int | None = None) -> Constraint:
        """Nothing but calls of these tools, at least one."""
        calls = self._calls(tools, most)
        return Concat((ConstString(self.before), calls, ConstString(self.after)))

    def within_text(self, tools: Iterable[Tool]) -> Constraint:
        """Any text; but where calls begin, they are calls of these tools, with arguments as they must be."""
        tags = tuple(Tag(self._head(tool), self.arguments(tool), self.end) for tool in tools)
        if self.before:
            tags = (Tag(self.before, self._calls(tools, None), self.after),)
        return TriggeredTags(triggers=(self.trigger or self.before or self.begin,), tags=tags)

    def _calls(self, tools: Iterable[Tool], most: int | None) -> Constraint:
        call = AnyOf(tuple(self._call(tool) for tool in tools))
        return Repeat(item=call, separator=self.between, most=most)

    def _call(self, tool: Tool) -> Constraint:
        return Concat((ConstString(self._head(tool)), self.arguments(tool), ConstString(self.end)))

    def _head(self, tool: Tool) -> str:
        return f"{self.begin}{tool.name}{self.middle}"
