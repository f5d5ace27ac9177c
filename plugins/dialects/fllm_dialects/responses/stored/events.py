"""Events of a stream as they are kept: encoded, each with its index as its number."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Literal

from litestar.exceptions import HTTPException
from litestar.response import Stream
from msgspec import Struct

from fllm import NAMED_EVENTS, ErrorInfo, Framing
from fllm_dialects.responses.protocol.events import ErrorEvent, ResponseEvent
from fllm_dialects.responses.protocol.responses import Response

MAX_BYTES = 1 << 28
"""Maximum size of the events of one response."""
EVENTS_AT_ONCE = 256
COMMENT_INTERVAL = 15.0
"""Seconds without an event after which a comment keeps the connection open."""


class Event(Struct, frozen=True):
    """An encoded event."""

    text: bytes


def framing_of_events() -> Framing:
    """Return the framing of one stream of `Event`s from the first on. An error's body becomes an event."""
    number = 0

    def encode(chunk: Struct) -> bytes:
        nonlocal number
        if isinstance(chunk, Event):
            number += 1
            return chunk.text
        error: ErrorInfo | None = getattr(chunk, "error", None)
        return NAMED_EVENTS.encode(chunk if error is None else error_event(error, number))

    return Framing("text/event-stream", encode)


def error_event(error: ErrorInfo, number: int) -> ErrorEvent:
    """Return the event with that number that reports an error."""
    return ErrorEvent(sequence_number=number, code=error.code, message=error.message, param=error.param)


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


def event_stream(events: AsyncGenerator[list[Event]], after: int) -> Stream:
    """Return the response that streams events after the one with that number. It needs no model."""
    # A buffering proxy would deliver the stream in one piece.
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return Stream(_with_comments(events, after), media_type="text/event-stream", headers=headers)


async def _with_comments(events: AsyncGenerator[list[Event]], after: int) -> AsyncGenerator[bytes]:
    """Yield the events, a comment after each interval without any, and an error as an event."""
    number = after + 1
    async with aclosing(events):
        arriving = asyncio.ensure_future(anext(events, None))
        try:
            while True:
                if not (await asyncio.wait([arriving], timeout=COMMENT_INTERVAL))[0]:
                    yield b": keep-alive\n\n"
                elif (arrived := arriving.result()) is None:
                    return
                else:
                    yield b"".join(event.text for event in arrived)
                    number += len(arrived)
                    arriving = asyncio.ensure_future(anext(events, None))
        except HTTPException as error:  # of the store: the headers are sent
            yield NAMED_EVENTS.encode(error_event(ErrorInfo(error.detail, "server_error"), number))
        finally:
            arriving.cancel()
            await asyncio.gather(arriving, return_exceptions=True)


async def compress(events: Iterable[bytes]) -> bytes:
    """Return the events as they are stored. Names and ids repeat, so they become ten times smaller."""
    return await asyncio.to_thread(zlib.compress, b"".join(events), 1)


async def read_events(stored: bytes, after: int) -> Iterator[list[Event]]:
    """Return the stored events after the one with that number, in parts."""
    content = await asyncio.to_thread(zlib.decompressobj().decompress, stored, MAX_BYTES)
    events = [Event(each + b"\n\n") for each in content.split(b"\n\n")[:-1]]
    return (events[start : start + EVENTS_AT_ONCE] for start in range(after + 1, len(events), EVENTS_AT_ONCE))
