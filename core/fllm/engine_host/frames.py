"""Frames: messages with a length header, and with a tag where others could change what is on the way."""

from __future__ import annotations

import asyncio
import hmac
from hashlib import blake2b
from typing import cast

from fllm.errors import FllmError

HEADER_BYTES = 4
"""Size of the length header, which is big-endian. The length includes the tag."""
TAG_BYTES = 16


class FrameError(FllmError):
    """A frame that this end does not accept. The connection ends with it."""


class FrameSeal:
    """Authenticates the frames of one direction of a connection: BLAKE2b with a key, over number and content.

    A frame that was changed, left out, repeated or moved has another tag. Content is not encrypted.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def tag(self, body: bytes | bytearray) -> bytes:
        """Return the tag of the next frame."""
        number, self._number = self._number, self._number + 1
        return blake2b(number.to_bytes(8, "big") + body, key=self._key, digest_size=TAG_BYTES).digest()

    def open(self, frame: bytearray) -> bytearray:
        """Return the content of the next frame; raise `FrameError` if its tag is another one."""
        body, tag = frame[:-TAG_BYTES], frame[-TAG_BYTES:]
        if not hmac.compare_digest(self.tag(body), tag):
            raise FrameError("a frame is not authentic")
        return body


class FrameProtocol(asyncio.Protocol):
    """One end of a connection; subclasses receive whole frames."""

    max_frame_bytes: int
    """Maximum size of a received frame."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._successor: asyncio.Protocol | None = None

    def frame_received(self, frame: bytearray) -> None:
        """Process a frame; raise `FrameError` to end the connection."""
        raise NotImplementedError

    def refuse(self, error: FrameError) -> None:
        """Report why the connection ends."""
        raise NotImplementedError

    def hand_over(self, successor: asyncio.Protocol) -> None:
        """Let another protocol receive all that follows the present frame."""
        self._successor = successor
        self.transport.set_protocol(successor)
        successor.connection_made(self.transport)

    @property
    def transport(self) -> asyncio.Transport:
        """The connection, once it is made."""
        assert self._transport is not None, "the connection is made"
        return self._transport

    def write_frame(self, body: bytes) -> None:
        """Send a frame without a tag."""
        self.transport.write(len(body).to_bytes(HEADER_BYTES, "big") + body)

    def abort(self) -> None:
        """Close the connection at once, and drop what waits to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class does not inherit from it

    def data_received(self, data: bytes) -> None:
        """Pass complete frames on. The first that is not accepted ends the connection."""
        self._received += data
        start = 0
        try:
            while (begin := start + HEADER_BYTES) <= len(self._received):
                size = int.from_bytes(self._received[start:begin], "big")
                if size > self.max_frame_bytes:
                    raise FrameError(f"a frame has {size} bytes, more than {self.max_frame_bytes}")
                if (end := begin + size) > len(self._received):
                    break
                start = end
                self.frame_received(self._received[begin:end])
                if self._successor is not None:
                    rest, self._received = bytes(self._received[start:]), bytearray()
                    if rest:
                        self._successor.data_received(rest)
                    return
        except FrameError as error:
            self._received = bytearray()
            self.refuse(error)
            self.abort()
            return
        del self._received[:start]
