"""The tools of a chat request."""

from __future__ import annotations

from typing import Any

from fllm.errors import RequestError
from fllm.interfaces import ParserFactory
from fllm.values import Tool
from fllm_api.protocol.chat import ChatRequest, NamedToolChoice

NO_PARAMETERS = {"type": "object", "properties": {}}
"""OpenAI's meaning of a function without ``parameters``."""


def read_tools(body: ChatRequest, parser: ParserFactory | None) -> tuple[Tool, ...]:
    """The tools that the model is told of: none with ``tool_choice`` "none"; raises `RequestError`."""
    tools = tuple(
        Tool(tool.function.name, tool.function.description, tool.function.parameters or NO_PARAMETERS)
        for tool in body.tools or ()
    )
    _check_choice(body, tools)
    if not tools or body.tool_choice == "none":
        return ()
    if parser is None:
        raise RequestError(
            "this server was started without a tool-call parser: start it with --tool-call-parser NAME, "
            'or send `tool_choice`: "none"',
            param="tools",
        )
    return tools


def template_tool(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates expect it."""
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _check_choice(body: ChatRequest, tools: tuple[Tool, ...]) -> None:
    choice = body.tool_choice
    if choice in (None, "none", "auto"):
        return
    if not tools:
        raise RequestError("`tool_choice` needs `tools`", param="tool_choice")
    if isinstance(choice, NamedToolChoice) and choice.function.name not in {tool.name for tool in tools}:
        raise RequestError(
            f"`tool_choice`: {choice.function.name!r} is not among `tools`", param="tool_choice"
        )
    raise RequestError(
        '`tool_choice`: only "none" and "auto" are supported: to force a call, constrained decoding needs '
        "a grammar plugin, and none is offered yet",
        param="tool_choice",
        code="unsupported_parameter",
    )
