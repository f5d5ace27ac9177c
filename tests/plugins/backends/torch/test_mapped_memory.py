"""Memory in huge pages, as the system gives them."""

from __future__ import annotations

import numpy as np

from fllm_backends.torch.mapped_memory import HUGE_PAGE_BYTES, map_memory

MIB = 1024**2


def test_memory_begins_at_a_huge_page() -> None:
    mapped = map_memory(100, huge=False)
    assert mapped.array.ctypes.data % HUGE_PAGE_BYTES == 0
    assert len(mapped.array) == HUGE_PAGE_BYTES
    assert np.frombuffer(mapped.memory, np.uint8)[mapped.start :].ctypes.data == mapped.array.ctypes.data
