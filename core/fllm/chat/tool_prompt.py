"""Put the list of tools into a message, for templates that do not render tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

ToolPromptRole = Literal["template", "system", "user"]
"""Where the list of tools goes: the template renders it, or it becomes part of a message of that role."""

Conversation = list[dict[str, Any]]


def add_tool_prompt(
    conversation: Conversation, tools: Sequence[Mapping[str, Any]], role: ToolPromptRole
) -> Conversation:
    """Return the conversation with the list of tools in a message of ``role``."""
    text = "\n".join(["These functions are available:", *(json.dumps(tool["function"]) for tool in tools)])
    if role == "system":
        return _add_to_system(conversation, text)
    return _add_to_user(conversation, text) if role == "user" else conversation


def _add_to_system(conversation: Conversation, text: str) -> Conversation:
    """Append the text to the system message, or insert a system message."""
    first, *rest = conversation
    if first["role"] in ("system", "developer"):
        return [{**first, "content": _join(first["content"], text)}, *rest]
    return [{"role": "system", "content": text}, *conversation]


def _add_to_user(conversation: Conversation, text: str) -> Conversation:
    """Prepend the text to the first user message; do nothing if there is none."""
    index = next((i for i, message in enumerate(conversation) if message["role"] == "user"), None)
    if index is None:
        return conversation
    message = conversation[index]
    extended = {**message, "content": _join(text, message["content"])}
    return [*conversation[:index], extended, *conversation[index + 1 :]]


def _join(first: Any, second: Any) -> Any:
    """Concatenate two contents, each of which is a string or a list of parts."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
