"""Where items wait for whoever reads them; those that wait together leave together."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class OutputQueue(Generic[T]):
    """Items of any number of writers on their way to one reader, all on one event loop.

    A reader that is slower than its writers takes all that is there at once, and does its work once for all;
    one that is faster gets each item as soon as it comes.
    """

    def __init__(self) -> None:
        self._items: list[T] = []
        self._failure: Exception | None = None
        self._filled = asyncio.Event()

    def put(self, item: T) -> None:
        """Add an item; after a failure it is dropped."""
        if self._failure is None:
            self._items.append(item)
            self._filled.set()

    def fail(self, failure: Exception) -> None:
        """Let `get` raise this once what came before is read."""
        self._failure = failure
        self._filled.set()

    async def get(self) -> list[T]:
        """Wait until there is something, and take all of it."""
        await self._filled.wait()
        items, self._items = self._items, []
        if self._failure is None:
            self._filled.clear()
        elif not items:
            raise self._failure
        return items
