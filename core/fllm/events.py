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

_PIECES = (Text, Reasoning, ToolArguments)


def merged(events: Iterable[E]) -> list[E]:
    """The same events with neighbours of one kind joined and empty ones left out."""
    result: list[E] = []
    for event in events:
        if isinstance(event, _PIECES) and not event.text:
            continue
        joint = _join(result[-1], event) if result else None
        if joint is None:
            result.append(event)
        else:
            result[-1] = joint  # type: ignore[assignment]  # of the kind of both
    return result


def _join(first: Event, second: Event) -> Event | None:
    match first, second:
        case Text(), Text():
            return Text(first.text + second.text)
        case Reasoning(), Reasoning():
            return Reasoning(first.text + second.text)
        case ToolArguments(), ToolArguments() if first.index == second.index:
            return ToolArguments(first.index, first.text + second.text)
        case _:
            return None
