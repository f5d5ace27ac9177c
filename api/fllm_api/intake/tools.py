"""Read the tools of a chat request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fllm.errors import RequestError
from fllm.requests.chat import ChatRequest, ChatTool, NamedToolChoice
from fllm.values import Tool
from fllm_api.config import ServerConfig

NO_PARAMETERS = {"type": "object", "properties": {}}
"""Parameters of a function without ``parameters``, as in OpenAI's API."""


def read_tools(body: ChatRequest, config: ServerConfig) -> tuple[Tool, ...]:
    """Return the tools of the prompt: none with ``tool_choice`` "none", unless an option includes them.

    Raise `RequestError` if ``tool_choice`` does not match the tools.
    """
    tools = to_tools(body.tools or ())
    _check_choice(body, tools)
    return () if body.tool_choice == "none" and config.exclude_tools_when_tool_choice_none else tools


def to_tools(tools: Iterable[ChatTool]) -> tuple[Tool, ...]:
    """Return the tools of a request as a parser and a chat template receive them."""
    return tuple(
        Tool(tool.function.name, tool.function.description, tool.function.parameters or NO_PARAMETERS)
        for tool in tools
    )


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
    if isinstance(choice, NamedToolChoice) and choice.function.name not in {tool.name for tool in tools}:
        raise RequestError(f"`tool_choice`: {choice.function.name!r} is not in `tools`", param="tool_choice")
