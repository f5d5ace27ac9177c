"""Histories of chats: which of their texts a prompt must contain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

Message = dict[str, Any]


def is_whole(prompt: str, messages: Sequence[Message]) -> bool:
    """Return whether the prompt has each text of the messages, in order.

    System messages may be anywhere, but in order. So may tool calls: some templates write them before the
    text of their message. Results may be anywhere, since a template may take one call and its result at a
    time.
    """
    system = [message for message in messages if message["role"] in ("system", "developer")]
    results = [message for message in messages if message["role"] in ("tool", "function")]
    turns = [message for message in messages if message not in system and message not in results]
    return (
        has_in_order(prompt, list(chain.from_iterable(map(_texts, system))))
        and has_in_order(prompt, list(chain.from_iterable(map(_texts, turns))))
        and has_in_order(prompt, list(chain.from_iterable(map(_calls, turns))))
        and all(has_in_order(prompt, list(_texts(result))) for result in results)
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
    content = message["content"]
    for part in content if isinstance(content, list) else [{"text": content}]:
        # What precedes the answer are thoughts, which templates leave out of earlier turns.
        yield (part.get("text") or part.get("refusal") or "").rpartition("</think>")[2]


def _calls(message: Message) -> Iterator[str]:
    for call in message.get("tool_calls") or ():
        yield call["function"]["name"]
        arguments = call["function"]["arguments"]
        for value in (json.loads(arguments) if isinstance(arguments, str) else arguments).values():
            if isinstance(value, str):
                yield value
