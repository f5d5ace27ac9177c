"""Write tools, calls and their results as text, for templates and models without a format of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

TextRole = Literal["system", "user"]
"""The role of the message that holds text about tools."""

Conversation = list[dict[str, Any]]

EXAMPLE_CALL = {"name": "function_name", "arguments": {"parameter": "value"}}


class CallFormat(Struct, frozen=True, kw_only=True):
    """How a model writes calls whose arguments are JSON; the fields are those of a `ToolFormat`."""

    before: str
    begin: str
    middle: str
    end: str
    between: str
    after: str

    def write(self, functions: Iterable[Mapping[str, Any]]) -> str:
        """Return the text of the calls, each with ``name`` and ``arguments``, an object or its JSON text."""
        calls = (
            f"{self.begin}{each['name']}{self.middle}{_json(each['arguments'])}{self.end}"
            for each in functions
        )
        return f"{self.before}{self.between.join(calls)}{self.after}"

    def instructions(self) -> str:
        """Return text that tells a model how to write calls."""
        return (
            "To call functions, answer with nothing but the calls, in this format: "
            f"{self.write([EXAMPLE_CALL])}\n"
            "Answer in plain text if no function is needed, or once you have the results."
        )


DEFAULT_CALL_FORMAT = CallFormat(
    before="[", begin='{"name": "', middle='", "parameters": ', end="}", between=", ", after="]"
)
"""The server's own format, since most models were trained on some form of it."""


def add_tool_prompt(
    conversation: Conversation,
    role: TextRole,
    tools: Sequence[Mapping[str, Any]],
    explained: CallFormat | None,
) -> Conversation:
    """Return the conversation with a list of the tools, and instructions, in a message of ``role``."""
    lines = ["These functions are available:", *(_json(tool["function"]) for tool in tools)]
    text = _join("\n".join(lines), explained.instructions() if explained else "")
    return _add_to_system(conversation, text) if role == "system" else _add_to_user(conversation, text)


def add_instructions(conversation: Conversation, explained: CallFormat) -> Conversation:
    """Return the conversation with instructions in the first user message.

    A system message could replace the one that a template with tools has of its own.
    """
    return _add_to_user(conversation, explained.instructions(), after=True)


def _json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _add_to_system(conversation: Conversation, text: str) -> Conversation:
    """Append the text to the system message, or insert a system message."""
    first, *rest = conversation
    if first["role"] in ("system", "developer"):
        return [{**first, "content": _join(first["content"], text)}, *rest]
    return [{"role": "system", "content": text}, *conversation]


def _add_to_user(conversation: Conversation, text: str, *, after: bool = False) -> Conversation:
    """Add the text to the first user message; do nothing if there is none."""
    index = next((i for i, message in enumerate(conversation) if message["role"] == "user"), None)
    if index is None:
        return conversation
    message = conversation[index]
    content = _join(message["content"], text) if after else _join(text, message["content"])
    return [*conversation[:index], {**message, "content": content}, *conversation[index + 1 :]]


def _join(first: Any, second: Any, separator: str = "\n\n") -> Any:
    """Concatenate two contents, each of which is a string or a list of parts."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}{separator}{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
