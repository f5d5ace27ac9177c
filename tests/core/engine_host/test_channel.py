"""Messages arrive whole and in order however the connection divides them; what is damaged ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, msgpack

from fllm.engine_host.channel import Channel
from fllm.engine_host.frames import HEADER_BYTES, TAG_BYTES


class Note(Struct, frozen=True):
    text: str


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.aborted = self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = self.closed = True


class End:
    """One end of a connection."""

    def __init__(self, *keys: bytes, max_bytes: int = 1000) -> None:
        self.received: list[str] = []
        self.channel: Channel[Note] = Channel(
            msgpack.Decoder(Note).decode, lambda note: self.received.append(note.text), max_bytes
        )
        if keys:
            self.channel.secure(*keys)
        self.wire = Wire()
        self.channel.connection_made(cast(Any, self.wire))

    def sent(self, texts: Iterable[str]) -> bytes:
        """Return what the connection carries for these messages."""

        async def send() -> None:
            for text in texts:
                self.channel.send(Note(text))
            await asyncio.sleep(0)

        asyncio.run(send())
        return self.wire.sent


def pair(*, secure: bool) -> tuple[End, End]:
    keys = (b"a" * 32, b"b" * 32)
    return (End(*keys), End(*reversed(keys))) if secure else (End(), End())


def frames(sent: bytes) -> list[bytes]:
    """Divide what was sent into frames, headers included."""
    found = []
    while sent:
        end = HEADER_BYTES + int.from_bytes(sent[:HEADER_BYTES], "big")
        found.append(sent[:end])
        sent = sent[end:]
    return found


@given(
    texts=st.lists(st.text(max_size=20), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    secure=st.booleans(),
)
def test_messages_arrive_however_they_are_divided(texts: list[str], cuts: list[int], secure: bool) -> None:
    sender, receiver = pair(secure=secure)
    sent = sender.sent(texts)
    edges = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    for start, end in pairwise(edges):
        receiver.channel.data_received(sent[start:end])
    assert receiver.received == texts
    assert not receiver.wire.closed


def test_messages_of_one_iteration_are_one_write() -> None:
    writes: list[bytes] = []
    sender = End()
    sender.wire.write = writes.append  # type: ignore[method-assign]
    sender.sent(["a", "b", "c"])
    assert [len(frames(write)) for write in writes] == [3]


@pytest.mark.parametrize(
    ("change", "arrived"),
    [
        (lambda a, b, c: [b, c], []),
        (lambda a, b, c: [a, c], ["a"]),
        (lambda a, b, c: [a, a], ["a"]),
        (lambda a, b, c: [a, c, b], ["a"]),
        (lambda a, b, c: [a, b[:-1] + bytes([b[-1] ^ 1])], ["a"]),
        (lambda a, b, c: [a, b[:6] + b"x" + b[7:]], ["a"]),
        (lambda a, b, c: [a, (TAG_BYTES - 1).to_bytes(4, "big") + b[4:]], ["a"]),
        (lambda a, b, c: [a, bytes(4)], ["a"]),
    ],
    ids=["first left out", "one left out", "repeated", "moved", "tag", "content", "cut", "empty"],
)
def test_a_secure_channel_ends_at_a_frame_that_was_changed_left_out_repeated_or_moved(
    change: Any, arrived: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = pair(secure=True)
    for frame in change(*frames(sender.sent("abc"))):
        receiver.channel.data_received(frame)
        if receiver.wire.aborted:
            break
    assert receiver.received == arrived
    assert receiver.wire.aborted
    assert caplog.messages == ["the connection of an engine ends: a frame is not authentic"]


def test_a_frame_of_the_other_direction_is_not_accepted() -> None:
    sender, _ = pair(secure=True)
    sender.channel.data_received(sender.sent(["a"]))
    assert sender.wire.aborted
    assert sender.received == []


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\xff\xff\xff\xff", "a frame has 4294967295 bytes, more than"),
        ((1000 + TAG_BYTES + 1).to_bytes(4, "big"), "more than 1016"),
        (b"\x00\x00\x00\x01\xc1", "can't be decoded"),
        (b"\x00\x00\x00\x00", "can't be decoded"),
        (b"\x00\x00\x00\x02\x91\x91", "can't be decoded"),
        (b"\x00\x00\x03\xe8" + b"\x91" * 1000, "can't be decoded"),
    ],
)
def test_a_frame_that_can_not_be_read_ends_the_connection_with_one_line(
    frame: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    end = End()
    end.channel.data_received(frame)
    assert end.wire.aborted
    [line] = caplog.messages
    assert reason in line
    assert end.channel.failure is not None


@given(st.binary(max_size=300))
def test_any_bytes_end_the_connection_or_are_messages(data: bytes) -> None:
    logging.disable(logging.ERROR)
    try:
        end = End()
        end.channel.data_received(data)
    finally:
        logging.disable(logging.NOTSET)


def test_writers_wait_while_the_other_end_does_not_read() -> None:
    async def scenario() -> None:
        channel = End().channel
        await channel.writable()
        channel.pause_writing()
        waiting = [asyncio.create_task(channel.writable()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        channel.resume_writing()
        await asyncio.gather(*waiting)
        channel.pause_writing()
        lost = asyncio.create_task(channel.writable())
        await asyncio.sleep(0)
        channel.connection_lost(None)
        await lost
        assert channel.closed.is_set()

    asyncio.run(scenario())
