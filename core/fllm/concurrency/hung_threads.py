"""Threads that hang and can't be ended. Their number is limited, in total and for each client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

MAX_HUNG = 16
"""Number of threads that may hang."""
MAX_HUNG_OF_CLIENT = 4
"""Those of them that one client may cause."""


class HungThreads:
    """Counts threads that hang, by the clients that caused it."""

    def __init__(self, clients: Iterable[str] = ()) -> None:
        self._counts = Counter(clients)

    def too_many(self, client: str) -> bool:
        """Return whether nothing of this client should run that may hang."""
        return self._counts[client] >= MAX_HUNG_OF_CLIENT or self._counts.total() >= MAX_HUNG

    def add(self, client: str) -> None:
        """Count a thread that hangs."""
        self._counts[client] += 1

    def remove(self, client: str) -> None:
        """Stop to count a thread, which has ended after all."""
        self._counts[client] -= 1
        if not self._counts[client]:
            del self._counts[client]
