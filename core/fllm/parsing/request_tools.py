"""The tools of a request, as a parser and a chat template receive them."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.requests.chat import ChatTool, FunctionDefinition
from fllm.values import Tool

NO_PARAMETERS = {"type": "object", "properties": {}}
"""Parameters of a function without ``parameters``, as in OpenAI's API."""


def to_tools(tools: Iterable[ChatTool]) -> tuple[Tool, ...]:
    """Return the tools of a request as a parser and a chat template receive them."""
    return tuple(
        Tool(tool.function.name, tool.function.description, tool.function.parameters or NO_PARAMETERS)
        for tool in tools
    )


def from_tools(tools: Iterable[Tool]) -> tuple[ChatTool, ...]:
    """Return tools in the form of a request."""
    return tuple(
        ChatTool(FunctionDefinition(name=tool.name, description=tool.description, parameters=tool.parameters))
        for tool in tools
    )
