"""What a parser makes of text, and an encoder makes JSON of.

A stream of events is append-only: what was emitted is never taken back, so the whole answer is the fold of
its events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

from msgspec import Struct

from fllm.values import Usage


class Text(Struct, frozen=True):
    """A piece of the answer."""

    text: str


class Reasoning(Struct, frozen=True):
    """A piece of what the model thought before it answered."""

    text: str


class ToolStart(Struct, frozen=True):
    """A tool call begins; calls are numbered from 0 in the order in which they begin."""

    index: int
    name: str


class ToolArguments(Struct, frozen=True):
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


class Finished(Struct, frozen=True, kw_only=True):
    """The end of a sequence: exactly one, and nothing after it."""

    reason: Literal["stop", "length", "tool_calls", "abort"]
    stop_reason: int | str | None = None
    """The stop token's id, or the stop string, where one of the request's own ended it."""
    usage: Usage


Event = Text | Reasoning | ToolStart | ToolArguments | Finished
ParserEvent = Text | Reasoning | ToolStart | ToolArguments

E = TypeVar("E", bound=Event)


def merged(events: Iterable[E]) -> list[E]:
    """The same events with neighbours of one kind joined and empty ones left out."""
    result: list[E] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Text | Reasoning | ToolArguments) and not event.text:
            continue
        if isinstance(event, Text | Reasoning) and type(last) is type(event):
            result[-1] = type(event)(last.text + event.text)
        elif (
            isinstance(event, ToolArguments) and isinstance(last, ToolArguments) and last.index == event.index
        ):
            result[-1] = ToolArguments(event.index, last.text + event.text)  # type: ignore[assignment]
        else:
            result.append(event)
    return result
