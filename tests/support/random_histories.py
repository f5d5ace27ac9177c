"""Hypothesis strategies of chats as clients send them, in any order of roles."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import strategies as st

Message = dict[str, Any]


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Return messages whose texts are distinct words, so that each can be found again in a prompt."""
    numbers = count(1)
    calls: list[Message] = []
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=10))
    return [_message(draw, kind, numbers, calls) for kind in kinds]


KINDS = (
    "system",
    "developer",
    "user",
    "user",
    "assistant",
    "calls",
    "tool",
    "tool",
    "orphan",
    "function_call",
)


def _message(draw: st.DrawFn, kind: str, numbers: Any, calls: list[Message]) -> Message:
    content = draw(st.sampled_from((f"word{next(numbers)}.", _parts(numbers))))
    if kind in ("system", "developer", "user"):
        return {"role": kind, "content": content, "name": draw(st.sampled_from((None, "bob")))}
    if kind == "assistant":
        return {"role": kind, **draw(st.sampled_from(_texts(content))), **draw(st.sampled_from(EXTRAS))}
    if kind == "function_call":
        calls[:] = [{"id": None, "function": _function(numbers)}]
        return {"role": "assistant", "content": None, "function_call": calls[0]["function"]}
    if kind == "calls":
        calls[:] = [_call(draw, numbers) for _ in range(draw(st.integers(1, 3)))]
        text = draw(st.sampled_from((*_texts(content), {"content": None}, {"content": ""}, {})))
        return {"role": "assistant", **text, **draw(st.sampled_from(EXTRAS)), "tool_calls": [*calls]}
    if kind == "orphan" or not calls:
        return {
            "role": "tool",
            "content": content,
            "tool_call_id": draw(st.sampled_from((None, "nothing", ""))),
        }
    call = calls.pop(draw(st.integers(0, len(calls) - 1)))
    by_name = {"role": "function", "name": call["function"]["name"], "content": content}
    by_id = {"role": "tool", "tool_call_id": call["id"], "content": content}
    return draw(st.sampled_from((by_id, by_name)))


EXTRAS: tuple[Message, ...] = (
    {},
    {"reasoning": "why"},
    {"reasoning_content": "why"},
    {"audio": None, "refusal": None, "annotations": [], "function_call": None, "tool_calls": None},
    {"tool_calls": []},
)
"""Further fields of messages of the assistant."""


def _texts(content: Any) -> tuple[Message, ...]:
    text = content if isinstance(content, str) else content[0]["text"]
    return {"content": content}, {"content": None, "refusal": text}


def _parts(numbers: Any) -> list[Message]:
    return [
        {"type": "text", "text": f"word{next(numbers)}."},
        {"type": "text", "text": f"word{next(numbers)}."},
    ]


def _function(numbers: Any) -> Message:
    return {"name": f"name{next(numbers)}_", "arguments": f'{{"x": "word{next(numbers)}."}}'}


def _call(draw: st.DrawFn, numbers: Any) -> Message:
    call_id = draw(st.sampled_from((None, "", "same", "call_0123456789abcdef", "abcdefgh1")))
    return {"id": call_id, "type": "function", "function": _function(numbers)}
