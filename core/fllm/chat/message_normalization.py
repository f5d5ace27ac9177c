"""Messages as a client sends them, brought into the form that a template takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from fllm.errors import RequestError

Silence = Literal["absent", "null", "empty"]


class Form(Struct, frozen=True):
    """How a template takes messages."""

    lists: bool
    """Content that was sent as a list of parts stays one; otherwise the texts are joined by newlines."""
    strings: bool
    """Content that was sent as a string stays one; otherwise it becomes a list of one part."""
    developer: bool
    """The role ``developer`` is known; otherwise it becomes ``system``."""
    arguments_as_text: bool = False
    """The arguments of a tool call are given as JSON text; otherwise as an object."""
    silence: Silence = "empty"
    """The content of an assistant who only called tools."""


def normalize(messages: Sequence[Mapping[str, Any]], form: Form) -> list[dict[str, Any]]:
    """New messages in that form; raises `RequestError` with the path of what no template could take."""
    return [_message(message, form, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: Mapping[str, Any], form: Form, path: str) -> dict[str, Any]:
    # Templates ask whether a field is there, not whether it is null.
    result = {key: value for key, value in message.items() if value is not None}
    if result.get("role") == "developer" and not form.developer:
        result["role"] = "system"
    if reasoning := result.get("reasoning_content") or result.get("reasoning"):
        # gpt-oss calls it thinking.
        result |= {"reasoning_content": reasoning, "thinking": reasoning}
    if calls := result.pop("tool_calls", ()):
        result["tool_calls"] = [_call(call, form, f"{path}.tool_calls[{i}]") for i, call in enumerate(calls)]
    content = result.pop("content", "")
    if content or not calls or form.silence == "empty":
        result["content"] = _content(content, form, f"{path}.content", of_tool=result.get("role") == "tool")
    elif form.silence == "null":
        result["content"] = None
    return result


def _content(content: object, form: Form, path: str, *, of_tool: bool) -> Any:
    if isinstance(content, list):
        texts = [_text(part, f"{path}[{i}]") for i, part in enumerate(content)]
        # Templates that take both loop over what people say, and show a tool's result as it is.
        if not form.lists or (form.strings and of_tool):
            return "\n".join(texts)
        return [_part(text) for text in texts]
    return [_part(content)] if isinstance(content, str) and not form.strings else content


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _text(part: object, path: str) -> str:
    match part:
        case {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return text
        case {"type": str(kind)} if kind not in ("text", "refusal"):
            raise RequestError(
                f"a part of type {kind!r} can't be used: the model takes text only", param=f"{path}.type"
            )
        case _:
            raise RequestError("a part of content has a type and a text", param=path)


def _call(call: Mapping[str, Any], form: Form, path: str) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping):
        raise RequestError("a tool call has a function", param=f"{path}.function")
    arguments = _arguments(function.get("arguments"), form, f"{path}.function.arguments")
    return {"type": "function", **call, "function": {**function, "arguments": arguments}}


def _arguments(arguments: object, form: Form, path: str) -> str | dict[str, Any]:
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    text = text.strip() or "{}"
    try:
        parsed = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"the arguments of a tool call are a JSON object: {error}", param=path) from error
    return text if form.arguments_as_text else parsed
