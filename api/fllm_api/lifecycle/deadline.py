"""When a request has to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Deadline:
    """Ends a request's work with an error; of nested blocks the innermost, which knows best how to say it.

    Without it a request that is over could only be cancelled, and a cancelled stream ends in silence.
    """

    def __init__(self, when: float | None = None, error: Exception | None = None) -> None:
        self._when = when
        self._error = error
        self._blocks: list[asyncio.Timeout] = []

    def end(self, error: Exception) -> None:
        """Let what is under way raise this now; once only."""
        if not self._passed():
            self._error = error
            self._when = asyncio.get_running_loop().time()
            self._arm(self._when)

    @asynccontextmanager
    async def bounds(self) -> AsyncIterator[None]:
        """Work that raises the error once the time has come."""
        block = asyncio.timeout_at(None if self._blocks and self._passed() else self._when)
        try:
            async with block:
                self._arm(None)
                self._blocks.append(block)
                try:
                    yield
                finally:
                    self._blocks.pop()
                    if not self._passed():
                        self._arm(self._when)
        except TimeoutError:
            if not block.expired() or self._error is None:
                raise
            raise self._error from None

    def _arm(self, when: float | None) -> None:
        if self._blocks:
            self._blocks[-1].reschedule(when)

    def _passed(self) -> bool:
        return self._when is not None and self._when <= asyncio.get_running_loop().time()
