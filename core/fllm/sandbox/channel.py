"""Messages over one end of a socket pair, each behind its length, within a time."""

from __future__ import annotations

import socket
import time

HEADER = 4
"""Bytes of the length, big-endian."""
PIECE = 1 << 20


class Channel:
    """Raises `TimeoutError` past a deadline (of `time.monotonic`), and `EOFError` where nobody is there."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: bytes, deadline: float | None = None) -> None:
        """Return once all of it is on its way."""
        self._wait_until(deadline)
        self._end.sendall(len(message).to_bytes(HEADER, "big") + message)

    def receive(self, deadline: float | None = None, most: int | None = None) -> bytes:
        """The next message; one that says that it is longer than ``most`` counts as the end."""
        length = int.from_bytes(self._read(HEADER, deadline), "big")
        if most is not None and length > most:
            raise EOFError
        return self._read(length, deadline)

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _read(self, length: int, deadline: float | None) -> bytes:
        read = bytearray()
        while len(read) < length:
            self._wait_until(deadline)
            piece = self._end.recv(min(length - len(read), PIECE))
            if not piece:
                raise EOFError
            read += piece
        return bytes(read)

    def _wait_until(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        self._end.settimeout(left)
