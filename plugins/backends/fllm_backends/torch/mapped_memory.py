"""Memory that takes room only once it is written, in huge pages if the system has some.

Linux gives them only to memory that asks for them, and numpy asks only for large arrays.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE_BYTES = 2 * 1024**2


class MappedMemory(NamedTuple):
    """New memory. It is zero, and takes room only once it is written."""

    array: NDArray[np.uint8]
    """Its first byte is that of a huge page."""
    memory: mmap.mmap
    start: int
    """Where the array begins in the memory."""


def map_memory(size: int, *, huge: bool) -> MappedMemory:
    """Return new memory; ``huge``: in huge pages, if the system has some. Raise `MemoryError`."""
    size = -(-size // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    try:
        memory = mmap.mmap(-1, size + HUGE_PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"cannot map {size} bytes") from error
    if huge:
        _advise_huge(memory)
    array = np.frombuffer(memory, np.uint8)
    start = -array.ctypes.data % HUGE_PAGE_BYTES
    return MappedMemory(array[start : start + size], memory, start)


def _advise_huge(memory: mmap.mmap) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
