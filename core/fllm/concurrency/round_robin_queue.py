"""A queue between threads that serves its clients in turn."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class RoundRobinQueue(Generic[T]):
    """Items of clients, who are served round-robin. Those of one client leave in order of arrival."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._items: dict[str, deque[T]] = {}
        """The client to serve next is first."""

    def put(self, client: str, item: T) -> None:
        """Add an item after the others of its client."""
        with self._lock:
            self._items.setdefault(client, deque()).append(item)

    def pop(self) -> T | None:
        """Remove and return the next item, or return ``None`` if there is none."""
        with self._lock:
            if not self._items:
                return None
            client, items = next(iter(self._items.items()))
            item = items.popleft()
            del self._items[client]
            if items:
                self._items[client] = items  # after all other clients
            return item
