"""Telling a model of its tools where its template does not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Teller = Literal["template", "system", "user"]
"""Who tells the model of the tools: its template, or else a message of that role."""

Conversation = list[dict[str, Any]]


def tell(conversation: Conversation, tools: Sequence[Mapping[str, Any]], teller: Teller) -> Conversation:
    """The conversation, in which somebody tells of the tools."""
    text = "\n".join(["These functions are available:", *(json.dumps(tool["function"]) for tool in tools)])
    if teller == "system":
        return _system(conversation, text)
    return _user(conversation, text) if teller == "user" else conversation


def _system(conversation: Conversation, text: str) -> Conversation:
    """Behind what the system says."""
    first, *rest = conversation
    if first["role"] in ("system", "developer"):
        return [{**first, "content": _joined(first["content"], text)}, *rest]
    return [{"role": "system", "content": text}, *conversation]


def _user(conversation: Conversation, text: str) -> Conversation:
    """Before what the user says first; who never says anything is told nothing."""
    place = next((i for i, message in enumerate(conversation) if message["role"] == "user"), None)
    if place is None:
        return conversation
    message = conversation[place]
    told = {**message, "content": _joined(text, message["content"])}
    return [*conversation[:place], told, *conversation[place + 1 :]]


def _joined(first: Any, second: Any) -> Any:
    """Two contents as one; either may be a list of parts."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
