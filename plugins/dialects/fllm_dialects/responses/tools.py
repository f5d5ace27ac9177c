"""Read the tools of a request: functions, custom tools, and namespaces of both."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct
from msgspec.structs import replace

from fllm import (
    AllowedToolChoice,
    ChatTool,
    FunctionDefinition,
    NamedFunction,
    NamedToolChoice,
    RequestError,
)
from fllm.requests.chat import AllowedTool, AllowedTools
from fllm_dialects.responses.lark_pattern import LarkError, lark_pattern
from fllm_dialects.responses.protocol.tools import (
    CustomFormat,
    ToolChoice,
    ToolChoiceParam,
    ToolParam,
    ToolRef,
)

log = logging.getLogger("fllm.server")

CUSTOM_ARGUMENT = "input"
"""The argument of the function that stands for a custom tool: the whole input."""
_HOSTED = (
    "web_search",
    "file_search",
    "code_interpreter",
    "image_generation",
    "computer",
    "local_shell",
    "shell",
    "apply_patch",
    "tool_search",
    "programmatic_tool_calling",
    "mcp",
)
"""Tools that OpenAI runs or knows itself, also with a suffix such as ``_preview``."""


class CalledTool(Struct, frozen=True):
    """What a client calls a tool."""

    kind: Literal["function", "custom"]
    name: str
    namespace: str = ""
    forcible: bool = True
    """False for a custom tool with a Lark grammar that can't be enforced."""


class ToolSet(Struct, frozen=True):
    """The tools of a request as functions of a chat."""

    functions: list[ChatTool]
    paths: list[str]
    """Where each function is in the request."""
    called: dict[str, CalledTool]
    """The client's tool by the name that the model knows."""
    offered: list[ToolParam]
    """The client's tools without those that are not offered to the model."""


def chat_name(name: str, namespace: str | None = None) -> str:
    """Return the name that the model knows: names in a namespace begin with it."""
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def read_tools(tools: Sequence[ToolParam], choice: ToolChoice | None) -> ToolSet:
    """Return the tools as functions. Raise `RequestError` for tools that the server does not have."""
    offered = [
        (f"tools[{i}]", tool) for i, tool in enumerate(tools) if not _is_optional_search(tool, tools, choice)
    ]
    if len(offered) < len(tools):
        log.info("web_search is not offered to the model: the server has no web search")
    result = ToolSet([], [], {}, [tool for _, tool in offered])
    forced = is_forced(choice)
    for path, namespace, tool in _flat(offered):
        function, called = _read_tool(path, namespace, tool, forced=forced)
        if function.name in result.called:
            raise RequestError(f"`{path}.name`: there are two tools {function.name!r}", param=f"{path}.name")
        result.functions.append(ChatTool(function))
        result.paths.append(path)
        result.called[function.name] = called
    return result


def read_choice(
    choice: ToolChoice | None, tools: ToolSet
) -> Literal["none", "auto", "required"] | NamedToolChoice | AllowedToolChoice | None:
    """Return the choice among the functions. Raise `RequestError` if it names none of the tools."""
    match choice:
        case ToolChoiceParam(type="function" | "custom"):
            name = _chosen(ToolRef(type=choice.type, name=choice.name, namespace=choice.namespace), tools)
            _check_forcible([name], tools)
            return NamedToolChoice(NamedFunction(name))
        case ToolChoiceParam(type="allowed_tools"):
            names = [_chosen(tool, tools, f".tools[{i}]") for i, tool in enumerate(choice.tools or ())]
            mode = choice.mode or "auto"
            if not names:
                raise RequestError("`tool_choice.tools` names no tool", param="tool_choice.tools")
            allowed = [AllowedTool(NamedFunction(name)) for name in names]
            if mode == "required":
                _check_forcible(names, tools)
            return AllowedToolChoice(AllowedTools(tools=allowed, mode=mode))
        case ToolChoiceParam():
            raise RequestError(
                f"`tool_choice` of type {choice.type!r} is not supported; use 'function', 'custom' or "
                "'allowed_tools'",
                param="tool_choice.type",
                code="unsupported_parameter",
            )
        case "required":
            _check_forcible(tools.called, tools)
    return choice


def is_forced(choice: ToolChoice | None) -> bool:
    """Return whether the response must be a call."""
    if isinstance(choice, ToolChoiceParam):
        return choice.type != "allowed_tools" or choice.mode == "required"
    return choice == "required"


def _check_forcible(names: Iterable[str], tools: ToolSet) -> None:
    for name in names:
        if not tools.called[name].forcible:
            raise RequestError(
                f"`tool_choice`: a call of {name!r} can't be forced, because its Lark grammar can't be "
                "enforced: a rule refers to itself, or it is too large, or has what regular expressions "
                'don\'t have; use "auto"',
                param="tool_choice",
                code="unsupported_parameter",
            )


def _is_optional_search(tool: ToolParam, tools: Sequence[ToolParam], choice: ToolChoice | None) -> bool:
    """Return whether a client offers web search together with its own tools, as Codex always does.

    Codex sets ``external_web_access``, also for servers that it does not know.
    """
    return (
        tool.type == "web_search"
        and tool.external_web_access is not UNSET
        and choice in (None, "auto", "none")
        and any(other.type in ("function", "custom", "namespace") for other in tools)
    )


def _flat(tools: Iterable[tuple[str, ToolParam]]) -> Iterator[tuple[str, ToolParam | None, ToolParam]]:
    """Yield each tool with its path and its namespace."""
    for path, tool in tools:
        if tool.type != "namespace":
            yield path, None, tool
            continue
        _required_name(path, tool)
        for i, member in enumerate(tool.tools or ()):
            # The model reads the description of a namespace before its first function.
            yield f"{path}.tools[{i}]", tool, _described(member, tool.description) if i == 0 else member


def _described(tool: ToolParam, description: object) -> ToolParam:
    lines = [text for text in (description, tool.description) if isinstance(text, str) and text]
    return replace(tool, description="\n\n".join(lines) or None)


def _read_tool(
    path: str, namespace: ToolParam | None, tool: ToolParam, *, forced: bool
) -> tuple[FunctionDefinition, CalledTool]:
    if tool.type not in ("function", "custom"):
        raise RequestError(_unsupported(tool.type), param=f"{path}.type", code="unsupported_parameter")
    name = _required_name(path, tool)
    space = namespace.name or "" if namespace is not None else ""
    known_as, description = chat_name(name, space), tool.description or None
    if tool.type == "function":
        function = FunctionDefinition(
            known_as, description, tool.parameters or None, strict=bool(tool.strict) or None
        )
        return function, CalledTool("function", name, space)
    custom = tool.format or CustomFormat()
    pattern, explanation = _read_grammar(path, custom)
    # Not every server enforces grammars, and agents offer tools with a Lark grammar to all of them.
    is_enforced = pattern is not None and (forced or custom.syntax == "regex")
    argument: dict[str, Any] = {"type": "string", "description": explanation}
    function = FunctionDefinition(
        known_as,
        description,
        {
            "type": "object",
            "properties": {CUSTOM_ARGUMENT: argument | {"pattern": pattern} if is_enforced else argument},
            "required": [CUSTOM_ARGUMENT],
            "additionalProperties": False,
        },
        strict=is_enforced or None,
    )
    return function, CalledTool("custom", name, space, forcible=custom.type == "text" or pattern is not None)


def _read_grammar(path: str, custom: CustomFormat) -> tuple[str | None, str]:
    """Return the pattern of a custom tool's input, and its description for the model."""
    if custom.type == "text":
        return None, "The input of the tool, as free text."
    for field in ("syntax", "definition"):
        if not getattr(custom, field):
            param = f"{path}.format.{field}"
            raise RequestError(f"`{param}` is missing: a format of type 'grammar' requires it", param=param)
    if custom.syntax == "regex":
        _check_regex(f"{path}.format.definition", custom.definition or "")
        explanation = f"The input of the tool, which matches this regular expression: {custom.definition}"
        return f"^(?:{custom.definition})$", explanation
    try:
        pattern = lark_pattern(custom.definition or "")
    except LarkError as error:
        param = f"{path}.format.definition"
        raise RequestError(f"`{param}` is not a Lark grammar: {error}", param=param) from error
    explanation = f"The input of the tool, as text of this Lark grammar:\n{custom.definition}"
    return None if pattern is None else f"^(?:{pattern})$", explanation


def _check_regex(param: str, pattern: str) -> None:
    """Raise `RequestError` if the pattern is invalid: as a keyword of a schema, it would be ignored."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        if "bad escape" not in str(error):  # Python's module knows no \p{L}
            raise RequestError(f"`{param}` is not a regular expression: {error}", param=param) from error


def _required_name(path: str, tool: ToolParam) -> str:
    if not tool.name:
        raise RequestError(
            f"`{path}.name` is missing: in this API, the name of a function is next to its `type`",
            param=f"{path}.name",
        )
    return tool.name


def _unsupported(kind: str) -> str:
    hosted = any(kind == name or kind.startswith((f"{name}_", f"{name}-")) for name in _HOSTED)
    reason = "the server runs no hosted tools" if hosted else "there is no such type"
    return f"tools of type {kind!r} are not supported: {reason}; use 'function' or 'custom'"


def _chosen(ref: ToolRef, tools: ToolSet, path: str = "") -> str:
    """Return the name of a tool that a choice names."""
    name = chat_name(ref.name or "", ref.namespace or None)
    called: Mapping[str, CalledTool] = tools.called
    if name not in called or called[name].kind != ref.type:
        raise RequestError(
            f"`tool_choice{path}`: there is no {ref.type} tool {name!r} in `tools`",
            param=f"tool_choice{path}",
        )
    return name
