"""Plan the tool calls of a chat request: whether calls are allowed or forced, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from fllm.chat import CallFormat
from fllm.constraints import AnyOf, Constraint
from fllm.errors import RequestError
from fllm.interfaces import LoadedToolParser
from fllm.parsing.fallback_tool_format import FALLBACK_PARSER, FALLBACK_TOOL_FORMAT
from fllm.pipeline.output_constraint import OutputConstraint
from fllm.requests.chat import AllowedToolChoice, ChatRequest, NamedToolChoice
from fllm.structured_output.tool_format import ToolFormat, json_arguments
from fllm.values import Tool
from fllm_api.app_state import AppState
from fllm_api.intake.constraints import (
    check_constraint_supported,
    read_output_constraint,
    schema_text,
    with_object_type,
)
from fllm_api.intake.tools import callable_tools

_NAME = re.compile(r"[\w./:-]{1,200}")
"""Function names that every tool-call format and its parser support."""


class ToolCallPlan(Struct, frozen=True):
    """The parser of the calls in an output, and the constraint of the whole output."""

    parser: LoadedToolParser | None
    output_constraint: OutputConstraint | None
    calls_only: bool = False
    """Whether the constraint allows nothing but calls."""


def call_format(parser: LoadedToolParser | None) -> CallFormat:
    """Return how calls are written as text: as ``parser`` declares.

    It is the server's own format without a parser, and if the parser declares no format with JSON.
    """
    declared = parser and parser.tool_format
    known = declared if declared and declared.arguments is json_arguments else FALLBACK_TOOL_FORMAT
    return CallFormat(**{name: getattr(known, name) for name in CallFormat.__struct_fields__})


def plan_tool_calls(body: ChatRequest, tools: Sequence[Tool], server: AppState) -> ToolCallPlan:
    """Return how calls of ``tools`` are parsed and constrained.

    Raise `RequestError` if the server does not support what the request requires.
    """
    text = read_output_constraint(body, server.card)
    if not tools or body.tool_choice == "none":
        return ToolCallPlan(None, text)
    allowed = callable_tools(body, tools)
    if _is_forced(body):
        return _plan_forced_calls(body, allowed, server)
    parser = server.tool_parser or FALLBACK_PARSER
    if text is not None:
        return ToolCallPlan(parser, _text_or_calls(body, text, allowed, server))
    return ToolCallPlan(parser, _constrained_calls(body, allowed, len(allowed) < len(tools), server))


def _is_forced(body: ChatRequest) -> bool:
    """Return whether the output must be a call."""
    match body.tool_choice:
        case AllowedToolChoice(allowed):
            return allowed.mode == "required"
        case choice:
            return choice == "required" or isinstance(choice, NamedToolChoice)


def _plan_forced_calls(body: ChatRequest, tools: Sequence[Tool], server: AppState) -> ToolCallPlan:
    """Constrain the output to calls, in the model's own format if the parser declares it.

    `response_format` applies to text only, so it has no effect here.
    """
    check_constraint_supported(body, server.card, "tool_choice")
    parser = server.tool_parser if server.tool_parser and server.tool_parser.tool_format else FALLBACK_PARSER
    tool_format = parser.tool_format or FALLBACK_TOOL_FORMAT
    first, *fallbacks = _only_calls(body, tools, tool_format)
    return ToolCallPlan(parser, OutputConstraint(first, "tools", tuple(fallbacks)), calls_only=True)


def _only_calls(body: ChatRequest, tools: Sequence[Tool], tool_format: ToolFormat) -> list[Constraint]:
    """Return the constraint to calls, and those that replace it if it is refused.

    A tool that is not ``strict`` never makes a request fail: what can't be enforced of its schema is ignored.
    """
    single = body.parallel_tool_calls is False or isinstance(body.tool_choice, NamedToolChoice)
    strict = _strict_names(body)
    exact = _forceable(tools)
    lenient = [tool if tool.name in strict else replace(tool, lenient=True) for tool in exact]
    free = [tool if tool.name in strict else replace(tool, parameters={}) for tool in exact]
    constraints = []
    for variant in (exact, lenient, free) if lenient != exact else (exact,):
        try:
            constraints.append(tool_format.calls(variant, max_calls=1 if single else None))
        except RequestError:
            if variant is free or lenient == exact:
                raise
    return constraints


def _text_or_calls(
    body: ChatRequest, text: OutputConstraint, tools: Sequence[Tool], server: AppState
) -> OutputConstraint:
    either = [
        AnyOf((text.constraint, calls))
        for calls in _only_calls(body, tools, _declared_format(server, text.param))
    ]
    return OutputConstraint(either[0], text.param, tuple(either[1:]))


def _constrained_calls(
    body: ChatRequest, tools: Sequence[Tool], others_exist: bool, server: AppState
) -> OutputConstraint | None:
    """Allow any text, but only calls of these tools, and constrain those with ``strict`` to their schemas.

    Return ``None`` if all tools may be called and none is strict.
    """
    strict = _strict_names(body).intersection(tool.name for tool in tools)
    if not strict and not others_exist:
        return None
    param = "tool_choice"
    if strict:
        first = next(i for i, tool in enumerate(body.tools or ()) if tool.function.name in strict)
        param = f"tools[{first}].function.strict"
    check_constraint_supported(body, server.card, param)
    # Without parameters, any JSON object is allowed.
    schemas = [tool if tool.name in strict else replace(tool, parameters={}) for tool in tools]
    return OutputConstraint(_declared_format(server, param).within_text(_forceable(schemas)), "tools")


def _strict_names(body: ChatRequest) -> set[str]:
    return {tool.function.name for tool in body.tools or () if tool.function.strict}


def _declared_format(server: AppState, param: str) -> ToolFormat:
    if server.tool_parser is None:
        return FALLBACK_TOOL_FORMAT
    if server.tool_parser.tool_format is not None:
        return server.tool_parser.tool_format
    raise RequestError(
        f"`{param}` is not supported: the tool-call parser {server.config.tool_call_parser!r} does not "
        'declare its format; use `tool_choice` "none", "required" or a function',
        param=param,
        code="unsupported_parameter",
    )


def _forceable(tools: Sequence[Tool]) -> list[Tool]:
    """Return the tools with schemas of objects. Raise `RequestError` if calls of a tool can't be forced."""
    for tool in tools:
        if not _NAME.fullmatch(tool.name):
            raise RequestError(
                f"`tools`: {tool.name!r} can't be forced; a name has up to 200 letters, digits and _./:-",
                param="tools",
            )
        if tool.parameters.get("type", "object") != "object" or tool.parameters.get("not") in ({}, True):
            raise RequestError(
                f'`tools`: the parameters of {tool.name!r} must be of the type "object"', param="tools"
            )
    schema_text([tool.parameters for tool in tools], "tools")
    return [replace(tool, parameters=with_object_type(tool.parameters)) for tool in tools]
