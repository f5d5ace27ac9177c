"""Adapt the messages of other servers, and of outputs that were cut off, to what chat templates expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from fllm.parsing.argument_coercion import read_value
from fllm.parsing.argument_writer import quoted
from fllm.parsing.json_objects import complete_object
from fllm_api.protocol.chat import ChatMessage


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return the messages as dictionaries in which the arguments of each tool call are a JSON object."""
    builtins: list[dict[str, Any]] = [msgspec.to_builtins(message) for message in messages]
    for message in builtins:
        for call in message.get("tool_calls") or ():
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                function["arguments"] = object_text(function["arguments"])
    return builtins


def object_text(arguments: str) -> str:
    """Return the arguments as the text of a JSON object.

    An object that is cut off is completed, and a dictionary of Python is converted. Anything else becomes the
    only member of an object, so that nothing that the model wrote is lost.
    """
    text = arguments.strip()
    if text in ("", "null"):
        return "{}"
    if (completed := complete_object(text)) is not None:
        return completed
    value = read_value(text) or quoted(text)
    return value if value.startswith("{") else f'{{"arguments": {value}}}'
