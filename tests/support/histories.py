"""Histories of chats: which of their texts a prompt must contain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]


def is_whole(prompt: str, messages: Sequence[Message]) -> bool:
    """Return whether the prompt has each text of the messages, in order.

    System messages may be anywhere, but in order. So may the results of tools: a template may take one call
    and its result at a time.
    """
    system = [message for message in messages if message["role"] in ("system", "developer")]
    results = [message for message in messages if message["role"] in ("tool", "function")]
    turns = [message for message in messages if message not in system and message not in results]
    return all(
        has_in_order(prompt, [text for message in each for text in _texts(message)])
        for each in (system, results, turns)
    )


def has_in_order(prompt: str, texts: Sequence[str]) -> bool:
    """Return whether the prompt has the texts one after the other; white space around them does not count."""
    position = 0
    for text in filter(None, map(str.strip, texts)):
        found = _find(prompt, text, position)
        if found < 0:
            return False
        position = found
    return True


def _find(prompt: str, text: str, start: int) -> int:
    """Return the position behind the text, which the template may have written as JSON, or -1."""
    for form in (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]):
        if (found := prompt.find(form, start)) >= 0:
            return found + len(form)
    return -1


def _texts(message: Message) -> Iterator[str]:
    yield _text(message["content"])
    for call in message.get("tool_calls") or ():
        yield call["function"]["name"]
        arguments = call["function"]["arguments"]
        for value in (json.loads(arguments) if isinstance(arguments, str) else arguments).values():
            if isinstance(value, str):
                yield value


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text") or part.get("refusal") or "" for part in content)
    # What precedes the answer are thoughts, which templates leave out of earlier turns.
    return (content or "").rpartition("</think>")[2]
