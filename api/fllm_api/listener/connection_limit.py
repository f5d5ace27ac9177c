"""How many connections there may be, and which go first when there are too many."""

from __future__ import annotations

from typing import Protocol

REFUSALS = 256
"""Connections beyond the limit that may be open a moment longer, to be told that there are too many."""


class Connection(Protocol):
    """One of the crowd."""

    def close(self) -> None:
        """Let it go; nothing is under way on it."""
        ...


class Crowd:
    """The open connections, those that wait for a request in the order in which they began to wait.

    One more than the limit takes the place of the one that has waited longest: an idle connection of a pool,
    which its client opens again, or one whose headers never come. Only if all are at work, it is refused.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}

    def enter(self, connection: Connection) -> bool:
        """Whether there is room, or room was made."""
        fits = len(self._open) < self._limit or self._make_room()
        if fits:
            self._open.add(connection)
            self._waiting[connection] = None
        return fits

    def leave(self, connection: Connection) -> None:
        """It is closed, or as good as closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def works(self, connection: Connection) -> None:
        """A request has come on it."""
        self._waiting.pop(connection, None)

    def waits(self, connection: Connection) -> None:
        """Its last answer is complete."""
        if connection in self._open:
            self._waiting[connection] = None

    def _make_room(self) -> bool:
        if not self._waiting:
            return False
        longest = next(iter(self._waiting))
        self.leave(longest)
        longest.close()
        return True
