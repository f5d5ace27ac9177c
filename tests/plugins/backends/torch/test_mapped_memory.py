"""Memory in huge pages, as the system gives them."""

from __future__ import annotations

import pytest

from fllm_backends.torch.mapped_memory import HUGE_PAGE_BYTES, map_memory


@pytest.mark.parametrize("huge", [False, True])
def test_memory_begins_at_a_huge_page(huge: bool) -> None:
    memory = map_memory(100, huge=huge)
    assert memory.ctypes.data % HUGE_PAGE_BYTES == 0
    assert len(memory) == HUGE_PAGE_BYTES
    memory[-1] = 1
    assert memory.sum() == 1
