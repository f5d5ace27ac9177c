"""A time limit that ends a request with an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Deadline:
    """Raises an error in the innermost active block when the time is up.

    Unlike cancellation, this lets a stream send an error event before it closes.
    """

    def __init__(self, when: float | None = None, error: Exception | None = None) -> None:
        self._when = when
        self._error = error
        self._blocks: list[asyncio.Timeout] = []

    def expire(self, error: Exception) -> None:
        """Raise this error in the active block now. Without effect if the deadline has passed already."""
        if not self._passed():
            self._error = error
            self._when = asyncio.get_running_loop().time()
            self._reschedule(self._when)

    @asynccontextmanager
    async def enforce(self) -> AsyncIterator[None]:
        """Raise the error in this block when the time is up; of nested blocks, only in the innermost."""
        block = asyncio.timeout_at(None if self._blocks and self._passed() else self._when)
        try:
            async with block:
                self._reschedule(None)
                self._blocks.append(block)
                try:
                    yield
                finally:
                    self._blocks.pop()
                    if not self._passed():
                        self._reschedule(self._when)
        except TimeoutError:
            if not block.expired() or self._error is None:
                raise
            raise self._error from None

    def _reschedule(self, when: float | None) -> None:
        if self._blocks:
            self._blocks[-1].reschedule(when)

    def _passed(self) -> bool:
        return self._when is not None and self._when <= asyncio.get_running_loop().time()
