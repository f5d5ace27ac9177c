"""Read the tools of a chat request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fllm.errors import RequestError
from fllm.parsing.request_tools import to_tools
from fllm.requests.chat import AllowedToolChoice, ChatRequest, NamedToolChoice
from fllm.values import Tool
from fllm_api.config import ServerConfig


def read_tools(body: ChatRequest, config: ServerConfig) -> tuple[Tool, ...]:
    """Return the tools of the prompt: none with ``tool_choice`` "none", unless an option includes them.

    Raise `RequestError` if ``tool_choice`` does not match the tools.
    """
    tools = to_tools(body.tools or ())
    _check_choice(body, tools)
    return () if body.tool_choice == "none" and config.exclude_tools_when_tool_choice_none else tools


def callable_tools(body: ChatRequest, tools: Sequence[Tool]) -> list[Tool]:
    """Return those of the tools of the prompt that ``tool_choice`` allows to be called."""
    names = _named(body)
    return [tool for tool in tools if names is None or tool.name in names]


def template_tool(tool: Tool) -> dict[str, Any]:
    """Return a tool in the form that chat templates expect."""
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _check_choice(body: ChatRequest, tools: tuple[Tool, ...]) -> None:
    choice = body.tool_choice
    if choice in (None, "none", "auto"):
        return
    if not tools:
        raise RequestError("`tool_choice` requires `tools`", param="tool_choice")
    names = {tool.name for tool in tools}
    if unknown := next((name for name in _named(body) or () if name not in names), None):
        raise RequestError(f"`tool_choice`: {unknown!r} is not in `tools`", param="tool_choice")


def _named(body: ChatRequest) -> list[str] | None:
    """Return the names of the functions that ``tool_choice`` allows; ``None`` if it names none."""
    match body.tool_choice:
        case NamedToolChoice(function):
            return [function.name]
        case AllowedToolChoice(allowed):
            return [each.function.name for each in allowed.tools]
    return None
