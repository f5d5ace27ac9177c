"""Memory that takes room only once it is written, in huge pages if the system has some.

Linux gives them only to memory that asks for them, and numpy asks only for large arrays.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE_BYTES = 2 * 1024**2
PAGES_PER_STEP = 4
"""Huge pages to fill in one step: each takes as long as to copy it."""
_COLLAPSE = 25
"""``MADV_COLLAPSE`` of Linux 6.1: replace small pages by a huge one."""


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


class FillingRegions:
    """Replaces small pages by huge ones once they are full, so that huge pages take no more memory.

    Regions follow each other in memory, and each has a number of blocks, which are used from the first on.
    """

    def __init__(self, mapped: MappedMemory, block_bytes: Sequence[int], blocks: int) -> None:
        """Take regions of ``blocks`` blocks, each of which has one of these sizes."""
        self._mapped = mapped
        if not _can_collapse():
            _advise_huge(mapped.memory)
        starts = np.cumsum([0, *(size * blocks for size in block_bytes)]).tolist()
        self._regions = [*zip(starts[:-1], block_bytes, strict=True)]
        self._interval = max(1, HUGE_PAGE_BYTES // max(1, *block_bytes))
        self._filled = 0
        self._full: deque[int] = deque()

    def fill(self, blocks: int) -> None:
        """Replace some of the pages that are full when this number of blocks of each region is used."""
        if not _can_collapse():
            return
        if blocks >= self._filled + self._interval:
            for start, size in self._regions:
                before, after = start + self._filled * size, start + blocks * size
                first = max(-(-start // HUGE_PAGE_BYTES), before // HUGE_PAGE_BYTES)
                self._full.extend(range(first, after // HUGE_PAGE_BYTES))
            self._filled = blocks
        for _ in range(min(len(self._full), PAGES_PER_STEP)):
            self._replace(self._full.popleft())

    def _replace(self, page: int) -> None:
        """Replace a page, unless there is no memory for it. One that was not written yet is tried again."""
        memory, start = self._mapped.memory, self._mapped.start
        try:
            memory.madvise(_COLLAPSE, start + page * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EAGAIN):
                self._full.append(page)


@cache
def _can_collapse() -> bool:
    """Return whether the kernel replaces pages on request. An older one gives huge pages from the start."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and sys.platform == "linux" and (int(version[1]), int(version[2])) >= (6, 1)


def _advise_huge(memory: mmap.mmap) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
