"""Return memory that the C library keeps after large requests to the system."""

from __future__ import annotations

import asyncio
import ctypes

DELAY = 1.0
"""Seconds after a large request. All requests of this time share one trim, which takes milliseconds."""


class HeapTrimmer:
    """Calls ``malloc_trim`` of glibc in a thread, at most once per `DELAY`. Other libraries lack it.

    glibc keeps freed memory below a block that is still in use. Large bodies would so occupy memory for ever.
    """

    def __init__(self) -> None:
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._scheduled = False

    def schedule(self) -> None:
        """Schedule a trim. Call this on the event loop."""
        if self._malloc_trim is not None and not self._scheduled:
            self._scheduled = True
            loop = asyncio.get_running_loop()
            loop.call_later(DELAY, self._trim, loop)

    def _trim(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        assert self._malloc_trim is not None
        loop.run_in_executor(None, self._malloc_trim, 0)  # a call of ctypes releases the GIL
