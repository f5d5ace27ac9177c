"""Measure the memory of the engine process and of its child processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

MIN_INTERVAL = 1.0
"""Seconds for which a measurement is used at least."""
MAX_SHARE = 0.01
"""Share of the time that may be spent on measurements, for which the kernel looks at every page."""
_PROCESSES = Path("/proc")


class MemoryMeter:
    """Measures the proportional set size of this process and its children.

    These may be the ranks of a divided model. Pages that N processes share count as 1/N in each.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._next_at = float("-inf")

    async def read(self) -> int:
        """Return the bytes of these processes; 0 where the kernel does not report them."""
        started = time.monotonic()
        if started >= self._next_at:
            self._next_at = started + MIN_INTERVAL
            self._bytes = await asyncio.to_thread(_proportional_set_size)
            self._next_at = started + max(MIN_INTERVAL, (time.monotonic() - started) / MAX_SHARE)
        return self._bytes


def _proportional_set_size() -> int:
    rollups = (_read(process / "smaps_rollup") for process in _tree(os.getpid()))
    lines = (line for rollup in rollups for line in rollup.splitlines() if line.startswith("Pss:"))
    return sum(int(line.split()[1]) * 1024 for line in lines)


def _tree(process: int) -> Iterator[Path]:
    """Yield the directories of a process and of all processes below it."""
    directory = _PROCESSES / str(process)
    yield directory
    try:
        threads = [*(directory / "task").iterdir()]
    except OSError:  # it has ended, or this is not Linux
        return
    for thread in threads:
        for child in _read(thread / "children").split():
            yield from _tree(int(child))


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
