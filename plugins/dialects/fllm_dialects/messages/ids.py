"""Ids of messages and of tool calls.

A call id of this server is ``call_...``. Anthropic's clients get it as ``toolu_...``, and in the prompt it is
``call_...`` again, so that it is what the model has generated.
"""

from __future__ import annotations

import uuid

_CALL, _TOOL_USE = "call_", "toolu_"


def new_message_id() -> str:
    """Return the id of a new message."""
    return f"msg_{uuid.uuid4().hex}"


def tool_use_id(call_id: str) -> str:
    """Return the id of a call for the client. One in the model's own form stays."""
    return _replaced(call_id, _CALL, _TOOL_USE)


def chat_call_id(tool_use: str) -> str:
    """Return the id that a call has in the chat."""
    return _replaced(tool_use, _TOOL_USE, _CALL)


def _replaced(text: str, old: str, new: str) -> str:
    return new + text.removeprefix(old) if text.startswith(old) else text
