"""Events that parsers emit and encoders turn into JSON.

A stream of events is append-only: an emitted event is never taken back. So the whole response is the fold of
its events.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from fllm.values import Usage


class Text(Struct, frozen=True, tag="text"):
    """A piece of the response."""

    text: str


class Reasoning(Struct, frozen=True, tag="reasoning"):
    """A piece of the reasoning that precedes the response."""

    text: str


class ToolStart(Struct, frozen=True, tag="tool_start"):
    """Start of a tool call. Calls are numbered from 0 in the order of their start."""

    index: int
    name: str
    id: str | None = None
    """The id that the model generated, if its format has ids."""


class ToolArguments(Struct, frozen=True, tag="tool_arguments"):
    """A piece of the JSON text of the arguments of a call."""

    index: int
    text: str


class Finished(Struct, frozen=True, kw_only=True, tag="finished"):
    """End of a sequence: exactly one, and the last event."""

    reason: Literal["stop", "length", "tool_calls", "abort"]
    stop_reason: int | str | None = None
    """Id of the stop token, or the stop string, if one of the request ended the sequence."""
    usage: Usage


Event = Text | Reasoning | ToolStart | ToolArguments | Finished
ParserEvent = Text | Reasoning | ToolStart | ToolArguments

E = TypeVar("E", bound=Event)

_PIECES = (Text, Reasoning, ToolArguments)


def merge_events(events: Iterable[E]) -> list[E]:
    """Return the events with adjacent ones of one kind joined and empty ones left out."""
    kept = [event for event in events if not isinstance(event, _PIECES) or event.text]
    if len(kept) < 2:  # nearly always
        return kept
    return [event for _, run in groupby(kept, _merge_key) for event in _join([*run])]


def _merge_key(event: Event) -> object:
    """Return a key that is equal for adjacent events that can be joined."""
    match event:
        case Text() | Reasoning():
            return type(event)
        case ToolArguments():
            return event.index
        case _:
            return id(event)


def _join(run: list[E]) -> list[E]:
    first = run[0]
    if len(run) == 1 or not isinstance(first, _PIECES):
        return run
    text = "".join([event.text for event in run if isinstance(event, _PIECES)])
    return [replace(first, text=text)]
