"""Length-prefixed messages with deadlines, over one end of a socket pair."""

from __future__ import annotations

import socket
import time

HEADER_BYTES = 4
"""Size of the length, which is big-endian."""
CHUNK_BYTES = 1 << 20
"""Maximum number of bytes received at once."""


class MessageSocket:
    """Sends and receives messages.

    Deadlines are times of `time.monotonic`. Raises `TimeoutError` after a deadline, and `EOFError` if the
    other end is closed.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: bytes, deadline: float | None = None) -> None:
        """Send a message. Return once all of it is in the socket's buffer."""
        self._set_timeout(deadline)
        self._end.sendall(len(message).to_bytes(HEADER_BYTES, "big") + message)

    def receive(self, deadline: float | None = None, max_bytes: int | None = None) -> bytes:
        """Return the next message. Raise `EOFError` if its length exceeds ``max_bytes``."""
        length = int.from_bytes(self._read(HEADER_BYTES, deadline), "big")
        if max_bytes is not None and length > max_bytes:
            raise EOFError
        return self._read(length, deadline)

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _read(self, length: int, deadline: float | None) -> bytes:
        read = bytearray()
        while len(read) < length:
            self._set_timeout(deadline)
            chunk = self._end.recv(min(length - len(read), CHUNK_BYTES))
            if not chunk:
                raise EOFError
            read += chunk
        return bytes(read)

    def _set_timeout(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._end.settimeout(left)
