"""The limit on open connections, and which one is closed when there are too many."""

from __future__ import annotations

from typing import Protocol

MAX_REJECTED_CONNECTIONS = 128
"""Connections that may stay open beyond the limit, so that their clients can read why they were rejected."""


class Connection(Protocol):
    """An open connection."""

    def close(self) -> None:
        """Close the connection once everything is written. No request is in flight on it."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...


class ConnectionLimit:
    """Counts the open connections. At the limit, a new one replaces the one that has been idle longest.

    An idle connection either belongs to a client's pool, which reopens it, or has not sent its headers. A new
    connection is rejected only if all others are busy. If too many rejected ones are open, the oldest is
    aborted.
    """

    def __init__(self, limit: int, max_rejected: int = MAX_REJECTED_CONNECTIONS) -> None:
        self._limit = limit
        self._max_rejected = max_rejected
        self._open: set[Connection] = set()
        # Dicts keep the order of insertion: the first connection is the oldest.
        self._idle: dict[Connection, None] = {}
        self._rejected: dict[Connection, None] = {}

    def add(self, connection: Connection) -> bool:
        """Count a new connection; return whether there is room, or room was made by closing an idle one."""
        fits = len(self._open) < self._limit or self._close_oldest_idle()
        if fits:
            self._open.add(connection)
            self._idle[connection] = None
        return fits

    def remove(self, connection: Connection) -> None:
        """Stop counting a connection, because it is closed or being closed."""
        self._open.discard(connection)
        self._idle.pop(connection, None)
        self._rejected.pop(connection, None)

    def mark_busy(self, connection: Connection) -> None:
        """Record that a request has arrived."""
        self._idle.pop(connection, None)

    def mark_idle(self, connection: Connection) -> None:
        """Record that the last response is complete."""
        if connection in self._open:
            self._idle[connection] = None

    def mark_rejected(self, connection: Connection) -> None:
        """Record that a connection only stays open until its client has read why it was rejected."""
        self.remove(connection)
        self._rejected[connection] = None
        if len(self._rejected) > self._max_rejected:
            oldest = next(iter(self._rejected))
            self.remove(oldest)
            oldest.abort()

    def _close_oldest_idle(self) -> bool:
        if not self._idle:
            return False
        oldest = next(iter(self._idle))
        self.remove(oldest)
        oldest.close()
        return True
