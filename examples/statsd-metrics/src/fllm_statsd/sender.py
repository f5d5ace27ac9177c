"""StatsD's lines, several to a datagram."""

from __future__ import annotations

import logging
import socket

log = logging.getLogger("fllm_statsd")

DATAGRAM = 1432
"""Bytes that cross an Ethernet in one packet, headers off: what StatsD's own documentation recommends."""


class Sender:
    """Never blocks and never raises once it is made: what can't be sent at once is lost, as UDP is."""

    def __init__(self, host: str, port: int, path: str) -> None:
        """Looks the host up, so that nothing has to later; raises `OSError` if there is no such host."""
        self._path = path
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)
        self._socket.connect(address)
        self._lines: list[str] = []
        self._size = 0
        self._complained = False

    def count(self, name: str, number: int) -> None:
        """So many more."""
        self._add(f"{name}:{number}|c")

    def time(self, name: str, seconds: float) -> None:
        """How long something took."""
        self._add(f"{name}:{seconds * 1000:.3f}|ms")

    def gauge(self, name: str, number: float) -> None:
        """How much there is now."""
        self._add(f"{name}:{number:g}|g")

    def flush(self) -> None:
        """Send what is waiting for more."""
        if not self._lines:
            return
        datagram = "\n".join(self._lines).encode()
        self._lines, self._size = [], 0
        try:
            self._socket.send(datagram)
        except OSError as error:  # nobody listens, or the buffer is full
            if not self._complained:
                log.warning("metrics are lost: %s", error)
            self._complained = True

    def close(self) -> None:
        """Send what is left, and close the socket."""
        self.flush()
        self._socket.close()

    def _add(self, metric: str) -> None:
        line = f"{self._path}.{metric}"
        if self._size + len(line) > DATAGRAM:
            self.flush()
        self._lines.append(line)
        self._size += len(line) + 1
