"""Memory for packed weights, in huge pages."""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.padding import round_up

CHUNK_BYTES = 32 * 1024**2
"""Bytes to map at a time, at least. What is not written takes no memory."""
HUGE_PAGE_BYTES = 2 * 1024**2
ALIGNMENT = 64
"""Bytes of a cache line: a vector that crosses lines takes two loads."""


class PanelMemory:
    """Allocates arrays that follow each other in memory and are freed together.

    A processor reads weights about a tenth faster from huge pages. Linux gives them only to memory that asks
    for them, and numpy asks only for large arrays.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._chunk: NDArray[np.uint8] = np.empty(0, np.uint8)

    def allocate(self, *shape: int) -> NDArray[np.uint8]:
        """Return a new array of bytes. Raise `MemoryError`."""
        size = int(np.prod(shape))
        used = round_up(size, ALIGNMENT)
        with self._lock:
            if used > len(self._chunk):
                self._chunk = _map(max(used, CHUNK_BYTES))
            array, self._chunk = self._chunk[:size], self._chunk[used:]
        return array.reshape(shape)


def _map(size: int) -> NDArray[np.uint8]:
    """Return at least ``size`` bytes of new memory that starts at a huge page."""
    size = round_up(size, HUGE_PAGE_BYTES)
    try:
        memory = mmap.mmap(-1, size + HUGE_PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"cannot map {size} bytes") from error
    if sys.platform == "linux":
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    return array[-array.ctypes.data % HUGE_PAGE_BYTES :]
