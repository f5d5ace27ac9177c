"""Send metrics in StatsD's line format over UDP, several lines in one datagram."""

from __future__ import annotations

import logging
import socket

log = logging.getLogger("fllm_statsd")

MAX_DATAGRAM_BYTES = 1432
"""Maximum size of a datagram that fits into one Ethernet packet, as StatsD's documentation recommends."""


class Sender:
    """Collects lines into datagrams. It never blocks or raises: what can't be sent at once is lost."""

    def __init__(self, host: str, port: int, path: str) -> None:
        """Resolve the host name once. Raise `OSError` if that fails."""
        self._path = path
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)
        self._socket.connect(address)
        self._lines: list[str] = []
        self._size = 0
        self._warned = False

    def count(self, name: str, number: int) -> None:
        """Add to a counter."""
        self._add(f"{name}:{number}|c")

    def time(self, name: str, seconds: float) -> None:
        """Send a duration to a timer."""
        self._add(f"{name}:{seconds * 1000:.3f}|ms")

    def gauge(self, name: str, number: float) -> None:
        """Set a gauge."""
        self._add(f"{name}:{number:g}|g")

    def flush(self) -> None:
        """Send the pending lines."""
        if not self._lines:
            return
        datagram = "\n".join(self._lines).encode()
        self._lines, self._size = [], 0
        try:
            self._socket.send(datagram)
        except OSError as error:  # no server listens on the port, or the buffer is full
            if not self._warned:
                log.warning("metrics are lost: %s", error)
            self._warned = True

    def close(self) -> None:
        """Send the pending lines and close the socket."""
        self.flush()
        self._socket.close()

    def _add(self, metric: str) -> None:
        line = f"{self._path}.{metric}"
        if self._size + len(line) > MAX_DATAGRAM_BYTES:
            self.flush()
        self._lines.append(line)
        self._size += len(line) + 1
