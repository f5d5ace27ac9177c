"""Memory for packed weights."""

import mmap

import pytest

from fllm_backends.torch.fused.panel_memory import ALIGNMENT, PanelMemory
from fllm_backends.torch.mapped_memory import HUGE_PAGE_BYTES


def test_arrays_follow_each_other_at_cache_lines() -> None:
    memory = PanelMemory()
    first, second = memory.allocate(3, 7), memory.allocate(2, 100)
    first[:], second[:] = 1, 2
    assert first.shape == (3, 7)
    assert second.shape == (2, 100)
    assert (first == 1).all()
    assert first.ctypes.data % HUGE_PAGE_BYTES == 0
    assert second.ctypes.data == first.ctypes.data + ALIGNMENT


def test_an_array_can_be_larger_than_what_is_mapped_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm_backends.torch.fused.panel_memory.CHUNK_BYTES", 100)
    memory = PanelMemory()
    array = memory.allocate(3, HUGE_PAGE_BYTES)
    array[:] = 1
    assert memory.allocate(1)[0] == 0


def test_memory_that_cannot_be_mapped_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(MemoryError, match="cannot map"):
        PanelMemory().allocate(1)


def test_less_is_mapped_where_the_system_limits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mmap.mmap

    def limited(file: int, size: int, flags: int) -> mmap.mmap:
        if size > 3 * HUGE_PAGE_BYTES:
            raise OSError(12, "Cannot allocate memory")
        return whole(file, size, flags)

    monkeypatch.setattr(mmap, "mmap", limited)
    memory = PanelMemory()
    for _ in range(3):
        memory.allocate(HUGE_PAGE_BYTES)[:] = 1
