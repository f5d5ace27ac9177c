"""A restartable timer that costs nothing while it is not running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Calls ``on_timeout`` after ``seconds`` unless it is stopped; never if ``seconds`` is 0."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, on_timeout: Callable[[], None]
    ) -> None:
        self.seconds = seconds
        self._loop = loop
        self._on_timeout = on_timeout
        self._handle: asyncio.TimerHandle | None = None

    def restart(self) -> None:
        """Start the timer from the beginning."""
        self.stop()
        if self.seconds:
            self._handle = self._loop.call_later(self.seconds, self._on_timeout)

    def stop(self) -> None:
        """Stop the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
