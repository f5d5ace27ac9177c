"""Measure the memory of the engine process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

MIN_INTERVAL = 1.0
"""Seconds for which a measurement is used at least."""
MAX_SHARE = 0.01
"""Share of the time that may be spent on measurements, for which the kernel looks at every page."""
_ROLLUP = Path("/proc/self/smaps_rollup")


class MemoryMeter:
    """Measures the proportional set size of this process: pages shared with N others count as 1/N."""

    def __init__(self) -> None:
        self._bytes = 0
        self._next_at = float("-inf")

    async def read(self) -> int:
        """Return the bytes of this process; 0 where the kernel does not report them."""
        started = time.monotonic()
        if started >= self._next_at:
            self._next_at = started + MIN_INTERVAL
            self._bytes = await asyncio.to_thread(_proportional_set_size)
            self._next_at = started + max(MIN_INTERVAL, (time.monotonic() - started) / MAX_SHARE)
        return self._bytes


def _proportional_set_size() -> int:
    try:
        lines = _ROLLUP.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
