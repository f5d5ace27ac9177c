"""Memory for packed weights, in huge pages."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.padding import round_up
from fllm_backends.torch.mapped_memory import map_memory

CHUNK_BYTES = 1024**3
"""Bytes to map at a time, at least, if the system allows it. What is not written takes no memory."""
ALIGNMENT = 64
"""Bytes of a cache line: a vector that crosses lines takes two loads."""


class PanelMemory:
    """Allocates arrays that follow each other in memory and are freed together.

    A processor reads weights about a tenth faster from huge pages. The last one of a chunk is not full, so
    chunks are large.
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
                self._chunk = _map_chunk(used)
            array, self._chunk = self._chunk[:size], self._chunk[used:]
        return array.reshape(shape)


def _map_chunk(size: int) -> NDArray[np.uint8]:
    """Return new memory: a chunk, or ``size`` bytes where the system limits what is mapped."""
    try:
        return map_memory(max(size, CHUNK_BYTES), huge=True)
    except MemoryError:
        return map_memory(size, huge=True)
