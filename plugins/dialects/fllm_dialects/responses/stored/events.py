"""Events of a stream as they are kept: encoded, each with its index as its number."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from fllm import NAMED_EVENTS, Framing
from fllm_dialects.responses.protocol.events import ResponseEvent
from fllm_dialects.responses.protocol.responses import Response

MAX_BYTES = 1 << 28
"""Maximum size of the events of one response."""
EVENTS_AT_ONCE = 256


class Event(Struct, frozen=True):
    """An encoded event."""

    text: bytes


def _encode(chunk: Struct) -> bytes:
    return chunk.text if isinstance(chunk, Event) else NAMED_EVENTS.encode(chunk)


ENCODED_EVENTS = Framing("text/event-stream", _encode)
"""The framing of a stream of `Event`s."""


def encode_events(events: Iterable[Struct]) -> list[bytes]:
    """Return each event as it is sent."""
    return [NAMED_EVENTS.encode(event) for event in events]


def last_event(response: Response, number: int) -> Event:
    """Return the event of the end of a response."""
    kind: Literal["response.completed", "response.failed", "response.incomplete"]
    match response.status:
        case "completed":
            kind = "response.completed"
        case "failed":
            kind = "response.failed"
        case _:
            kind = "response.incomplete"
    event = ResponseEvent(type=kind, sequence_number=number, response=response)
    return Event(NAMED_EVENTS.encode(event))


async def compress(events: Iterable[bytes]) -> bytes:
    """Return the events as they are stored. Names and ids repeat, so they become ten times smaller."""
    return await asyncio.to_thread(zlib.compress, b"".join(events), 1)


async def read_events(stored: bytes, after: int) -> Iterator[list[Event]]:
    """Return the stored events after the one with that number, in parts."""
    content = await asyncio.to_thread(zlib.decompressobj().decompress, stored, MAX_BYTES)
    events = [Event(each + b"\n\n") for each in content.split(b"\n\n")[:-1]]
    return (events[start : start + EVENTS_AT_ONCE] for start in range(after + 1, len(events), EVENTS_AT_ONCE))
