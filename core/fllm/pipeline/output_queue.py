"""An asyncio queue whose reader receives waiting items together."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_ITEMS = 256
"""Maximum number of items in one batch: a reader that was slow processes no more before others run."""


class OutputQueue(Generic[T]):
    """A queue with any number of writers and one reader, all on one event loop.

    A reader that is slower than its writers receives the waiting items in batches and processes each batch
    together. A faster reader receives each item as soon as it is put.
    """

    def __init__(self) -> None:
        self._items: list[T] = []
        self._failure: Exception | None = None
        self._filled = asyncio.Event()

    def put(self, item: T) -> None:
        """Append an item; drop it if the queue has failed."""
        if self._failure is None:
            self._items.append(item)
            self._filled.set()

    def fail(self, failure: Exception) -> None:
        """Make `get` raise this error once the earlier items have been read, unless the queue has failed."""
        self._failure = self._failure or failure
        self._filled.set()

    async def get(self) -> list[T]:
        """Wait until there is at least one item; remove and return the items, at most `MAX_ITEMS`."""
        await self._filled.wait()
        if len(self._items) > MAX_ITEMS:
            await asyncio.sleep(0)
        items, self._items = self._items[:MAX_ITEMS], self._items[MAX_ITEMS:]
        if self._items:
            return items
        if self._failure is None:
            self._filled.clear()
        elif not items:
            raise self._failure
        return items
