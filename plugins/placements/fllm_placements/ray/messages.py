"""The messages between the server and its Ray driver: msgpack after a length header, over pipes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from msgspec import Struct, msgpack

from fllm import EngineLaunch
from fllm_placements.ray.options import Strategy

T = TypeVar("T")
HEADER_BYTES = 4
"""Size of the length header, which is big-endian."""


class Message(Struct, frozen=True, tag=True):
    """Base class of all messages. ``id`` is an `EngineLaunch.id`."""


class Open(Message, frozen=True):
    """To the driver, once: connect to the cluster."""

    address: str
    version: str
    """Version of this distribution, which each node must have."""


class Place(Message, frozen=True):
    """To the driver: start an engine where this is free."""

    launch: EngineLaunch
    bundle: Mapping[str, float]
    strategy: Strategy
    timeout: float
    """Seconds to wait for room."""


class Kill(Message, frozen=True):
    """To the driver: kill an engine, or give up its placement."""

    id: str


class Opened(Message, frozen=True):
    """To the server: the driver is connected."""

    address: str
    """Address of the driver's machine in the cluster."""


class Refused(Message, frozen=True):
    """To the server: the cluster can't be used."""

    reason: str


class Waiting(Message, frozen=True):
    """To the server: the cluster has no room for an engine yet."""

    id: str
    reason: str


class Placed(Message, frozen=True):
    """To the server: an engine runs."""

    id: str
    node: str


class Ended(Message, frozen=True):
    """To the server, once for each `Place`: the engine has ended, or could not be started."""

    id: str
    reason: str


ToDriver = Open | Place | Kill
ToServer = Opened | Refused | Waiting | Placed | Ended


def frame(message: Message) -> bytes:
    """Return a message as bytes."""
    body = msgpack.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


async def read(reader: asyncio.StreamReader, decoder: msgpack.Decoder[T]) -> T | None:
    """Return the next message, or ``None`` at the end."""
    try:
        size = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
        return decoder.decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
