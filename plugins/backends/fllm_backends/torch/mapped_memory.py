"""Memory that takes room only once it is written, in huge pages if the system has some.

Linux gives them only to memory that asks for them, and numpy asks only for large arrays.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE_BYTES = 2 * 1024**2


def map_memory(size: int, *, huge: bool) -> NDArray[np.uint8]:
    """Return zeros that begin at a huge page; ``huge``: in huge pages, if the system has some.

    Raise `MemoryError`.
    """
    size = -(-size // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    try:
        memory = mmap.mmap(-1, size + HUGE_PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"cannot map {size} bytes") from error
    if huge and sys.platform == "linux":
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    start = -array.ctypes.data % HUGE_PAGE_BYTES
    return array[start : start + size]
