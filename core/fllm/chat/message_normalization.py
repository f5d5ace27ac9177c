"""Normalize a client's messages into the format that a template takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from fllm.chat.message_content import IMAGE_PART, part_text
from fllm.errors import RequestError

EmptyContent = Literal["absent", "null", "empty"]
"""The content of an assistant message that has only tool calls."""


class MessageFormat(Struct, frozen=True):
    """The format in which a template takes messages."""

    lists: bool
    """Keep content that is a list of parts; otherwise join the texts with newlines."""
    strings: bool
    """Keep content that is a string; otherwise convert it to a list of one part."""
    developer_role: bool
    """Keep the role ``developer``; otherwise replace it with ``system``."""
    system_role: bool = True
    """Keep the role ``system``; otherwise replace it with ``developer``."""
    arguments_as_text: bool = False
    """Pass the arguments of a tool call as JSON text; otherwise as an object."""
    empty_content: EmptyContent = "empty"
    """The content of an assistant message that has only tool calls."""
    images: bool = True
    """Keep parts that stand for images; otherwise they become `IMAGE_MARK`."""


def normalize_messages(
    messages: Sequence[Mapping[str, Any]], message_format: MessageFormat
) -> list[dict[str, Any]]:
    """Return new messages in that format; raise `RequestError` with the path of an invalid field."""
    return [_message(message, message_format, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: Mapping[str, Any], message_format: MessageFormat, path: str) -> dict[str, Any]:
    # Templates test whether a field is defined, not whether it is null.
    result = {key: value for key, value in message.items() if value is not None}
    if result.get("role") == "developer" and not message_format.developer_role:
        result["role"] = "system"
    elif result.get("role") == "system" and not message_format.system_role:
        result["role"] = "developer"
    if reasoning := result.get("reasoning_content") or result.get("reasoning"):
        # gpt-oss templates call it thinking.
        result |= {"reasoning_content": reasoning, "thinking": reasoning}
    if calls := result.pop("tool_calls", ()):
        result["tool_calls"] = [
            _call(call, message_format, f"{path}.tool_calls[{i}]") for i, call in enumerate(calls)
        ]
    content = result.pop("content", "")
    if content or not calls or message_format.empty_content == "empty":
        result["content"] = _content(
            content, message_format, f"{path}.content", of_tool=result.get("role") == "tool"
        )
    elif message_format.empty_content == "null":
        result["content"] = None
    return result


def _content(content: object, message_format: MessageFormat, path: str, *, of_tool: bool) -> Any:
    if isinstance(content, list):
        parts = [_checked(part, f"{path}[{i}]") for i, part in enumerate(content)]
        # Templates that accept both formats loop over a user's content, but insert a tool's result as it is.
        if not message_format.lists or (message_format.strings and of_tool):
            return "\n".join(map(part_text, parts))
        if not message_format.images:
            return [_part(part_text(part)) for part in parts]
        return parts
    return [_part(content)] if isinstance(content, str) and not message_format.strings else content


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _checked(part: object, path: str) -> dict[str, str]:
    match part:
        case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return _part(text)
        case {"type": "image"}:
            return dict(IMAGE_PART)
        case {"type": str(kind)} if kind not in ("text", "refusal"):
            raise RequestError(
                f"content parts of type {kind!r} are not supported: a message consists of text, "
                "and of images if the model accepts them",
                param=f"{path}.type",
            )
        case _:
            raise RequestError("a content part must have a type and a text", param=path)


def _call(call: Mapping[str, Any], message_format: MessageFormat, path: str) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping):
        raise RequestError("a tool call must have a function", param=f"{path}.function")
    arguments = _arguments(function.get("arguments"), message_format, f"{path}.function.arguments")
    return {"type": "function", **call, "function": {**function, "arguments": arguments}}


def _arguments(arguments: object, message_format: MessageFormat, path: str) -> str | dict[str, Any]:
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    text = text.strip() or "{}"
    try:
        parsed = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(
            f"the arguments of a tool call must be a JSON object: {error}", param=path
        ) from error
    return text if message_format.arguments_as_text else parsed
