"""A time limit that costs nothing while it is not set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` once ``seconds`` are over, unless it is cleared; 0 seconds: never."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, ring: Callable[[], None]) -> None:
        self.seconds = seconds
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self) -> None:
        """Begin to count, anew."""
        self.clear()
        if self.seconds:
            self._handle = self._loop.call_later(self.seconds, self._ring)

    def clear(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
