"""What a parser makes of text, and an encoder makes JSON of.

A stream of events is append-only: what was emitted is never taken back, so the whole answer is the fold of
its events.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

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
    id: str | None = None
    """The id that the model gave it, where its format has one."""


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

_PIECES = (Text, Reasoning, ToolArguments)


def merged(events: Iterable[E]) -> list[E]:
    """The same events with neighbours of one kind joined and empty ones left out."""
    told = [event for event in events if not isinstance(event, _PIECES) or event.text]
    if len(told) < 2:  # nearly always
        return told
    return [event for _, run in groupby(told, _place) for event in _joined([*run])]


def _place(event: Event) -> object:
    """What neighbours that can be joined have in common, and no others."""
    match event:
        case Text() | Reasoning():
            return type(event)
        case ToolArguments():
            return event.index
        case _:
            return id(event)


def _joined(run: list[E]) -> list[E]:
    first = run[0]
    if len(run) == 1 or not isinstance(first, _PIECES):
        return run
    text = "".join([event.text for event in run if isinstance(event, _PIECES)])
    return [replace(first, text=text)]
