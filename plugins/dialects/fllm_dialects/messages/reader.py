"""Turn a Messages request into a chat request."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fllm import (
    ChatRequest,
    ChatTool,
    FunctionDefinition,
    JsonSchemaFormat,
    NamedFunction,
    NamedToolChoice,
    RequestError,
)
from fllm.concurrency.turn_executor import Pieces
from fllm_dialects.messages.conversation import Conversation
from fllm_dialects.messages.errors import THREAD_UNSUPPORTED
from fllm_dialects.messages.protocol import (
    CountTokensRequest,
    MessagesRequest,
    ToolChoice,
    ToolParam,
)

PIECE_MESSAGES = 256
"""Number of messages that are read at once."""
_UNSUPPORTED = {
    "mcp_servers": "this server calls no MCP servers; call them yourself, and send their tools in `tools`",
    "container": "this server runs no code",
    "thread": "this server keeps no conversations; send all messages",
    "compaction": "this server does not summarize; ask for a summary in a message",
}
_SMALLEST_TOP_P = 1e-9
_CHOICES = {"auto": "auto", "none": "none", "any": "required"}


class ReadRequest(Struct, frozen=True):
    """A chat request, and what its fields are called in the Messages request."""

    chat: ChatRequest
    names: dict[str, str]


def read_request(body: CountTokensRequest) -> Pieces[ReadRequest]:
    """Return the chat request that a body stands for. Raise `RequestError` if it has none."""
    for name, reason in _UNSUPPORTED.items():
        if getattr(body, name):
            raise RequestError(
                f"`{name}` is not supported: {reason}",
                param=name,
                code=THREAD_UNSUPPORTED if name == "thread" else "unsupported_parameter",
            )
    conversation = Conversation()
    conversation.add_system(body.system)
    for start in range(0, len(body.messages), PIECE_MESSAGES):
        for i, message in enumerate(body.messages[start : start + PIECE_MESSAGES], start):
            conversation.add(message, f"messages[{i}]")
        yield 0
    conversation.end_turn()
    if not conversation.messages:
        raise RequestError("`messages` has nothing but an empty system message", param="messages")
    names = conversation.names | {
        "stop": "stop_sequences",
        "chat_template_kwargs.thinking_budget": "thinking.budget_tokens",
        "thinking_token_budget": "thinking.budget_tokens",
        **{f"tools[{i}].function": f"tools[{i}]" for i in range(len(body.tools or ()))},
    }
    response_format, path = _output_format(body)
    names["response_format"] = names["response_format.schema"] = path
    sampling = _sampling(body) if isinstance(body, MessagesRequest) else {}
    return ReadRequest(
        ChatRequest(
            messages=conversation.messages,
            model=body.model,
            tools=[_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or ())] or None,
            tool_choice=_tool_choice(body.tool_choice),
            parallel_tool_calls=None if body.tool_choice is None else _is_parallel(body.tool_choice),
            response_format=response_format,
            **_reasoning(body),
            **sampling,
        ),
        names,
    )


def _sampling(body: MessagesRequest) -> dict[str, Any]:
    return {
        "max_tokens": max(1, body.max_tokens),
        "stream": body.stream,
        "stop": body.stop_sequences,
        "temperature": body.temperature,
        "top_p": None if body.top_p is None else max(body.top_p, _SMALLEST_TOP_P),
        "top_k": body.top_k,
    }


def _reasoning(body: CountTokensRequest) -> dict[str, Any]:
    """Return the fields of a chat request for reasoning. Without ``thinking``, the template decides."""
    effort = body.output_config.effort if body.output_config else None
    thinking = body.thinking
    if thinking is None:
        return {"reasoning_effort": effort}
    # A model without a reasoning parser may get a budget, too: clients send one to any model.
    budget = {} if thinking.budget_tokens is None else {"thinking_budget": thinking.budget_tokens}
    return {
        "reasoning_effort": effort,
        "enable_thinking": thinking.type != "disabled",
        "include_reasoning": thinking.type != "disabled" and thinking.display != "omitted",
        "chat_template_kwargs": budget or None,
    }


def _output_format(body: CountTokensRequest) -> tuple[JsonSchemaFormat | None, str]:
    """Return the format of the output, and the path of its schema in the request."""
    config = body.output_config
    if config is not None and config.format is not None:
        return JsonSchemaFormat(schema=config.format.schema), "output_config.format.schema"
    if body.output_format is not None:
        return JsonSchemaFormat(schema=body.output_format.schema), "output_format.schema"
    return None, "output_config.format.schema"


def _tool(tool: ToolParam, path: str) -> ChatTool:
    if tool.type not in (None, "custom"):
        raise _unsupported(
            f"{path}.type",
            f"`{path}.type` {tool.type!r} is not supported: Anthropic runs or defines such tools; "
            "this server takes tools with an `input_schema`, which the client runs",
        )
    if tool.name is None or tool.input_schema is None:
        field = f"{path}.{'name' if tool.name is None else 'input_schema'}"
        raise RequestError(f"`{field}` is missing", param=field)
    return ChatTool(FunctionDefinition(tool.name, tool.description, tool.input_schema, tool.strict))


def _tool_choice(choice: ToolChoice | None) -> Any:
    if choice is None:
        return None
    if choice.type != "tool":
        return _CHOICES[choice.type]
    if choice.name is None:
        raise RequestError("`tool_choice.name` is missing", param="tool_choice.name")
    return NamedToolChoice(NamedFunction(choice.name))


def _is_parallel(choice: ToolChoice) -> bool:
    return not choice.disable_parallel_tool_use


def _unsupported(param: str, message: str) -> RequestError:
    return RequestError(message, param=param, code="unsupported_parameter")
