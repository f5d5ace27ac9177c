"""Memory in huge pages, as the system gives them."""

from __future__ import annotations

import errno
import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch import mapped_memory
from fllm_backends.torch.attention import KVCache, KVShape
from fllm_backends.torch.huge_pages import allows_huge_pages
from fllm_backends.torch.mapped_memory import HUGE_PAGE_BYTES, FillingRegions, MappedMemory, map_memory

MIB = 1024**2


class FakeMemory:
    """Records which pages are to be replaced; those of ``refused`` are not, once."""

    def __init__(self, refused: dict[int, int]) -> None:
        self.calls: list[int] = []
        self._refused = refused

    def madvise(self, advice: int, start: int, length: int) -> None:
        assert (advice, length) == (25, HUGE_PAGE_BYTES)
        page = start // HUGE_PAGE_BYTES
        if number := self._refused.pop(page, None):
            raise OSError(number, "refused")
        self.calls.append(page)


def regions(
    monkeypatch: pytest.MonkeyPatch,
    block_bytes: list[int],
    blocks: int,
    refused: dict[int, int] | None = None,
) -> tuple[FillingRegions, FakeMemory]:
    monkeypatch.setattr(mapped_memory, "_can_collapse", lambda: True)
    memory = FakeMemory(refused or {})
    mapped = MappedMemory(np.empty(0, np.uint8), memory, 0)  # type: ignore[arg-type]
    return FillingRegions(mapped, block_bytes, blocks), memory


def test_a_page_is_replaced_once_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    filling, memory = regions(monkeypatch, [MIB, MIB], 6)
    filling.fill(1)
    assert memory.calls == []
    filling.fill(3)
    assert memory.calls == [0, 3]
    filling.fill(3)
    filling.fill(6)
    assert memory.calls == [0, 3, 1, 2, 4, 5]


def test_a_page_that_two_regions_share_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    filling, memory = regions(monkeypatch, [MIB, MIB], 5)
    filling.fill(5)
    assert memory.calls == [0, 1, 3, 4]


def test_a_step_replaces_a_few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    filling, memory = regions(monkeypatch, [HUGE_PAGE_BYTES], 100)
    filling.fill(6)
    assert memory.calls == [0, 1, 2, 3]
    filling.fill(6)
    assert memory.calls == [0, 1, 2, 3, 4, 5]


def test_a_page_that_was_not_written_yet_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    filling, memory = regions(monkeypatch, [HUGE_PAGE_BYTES], 9, {0: errno.EINVAL, 1: errno.ENOMEM})
    filling.fill(3)
    assert memory.calls == [2]
    filling.fill(3)
    assert memory.calls == [2, 0]


def test_memory_begins_at_a_huge_page() -> None:
    mapped = map_memory(100, huge=False)
    assert mapped.array.ctypes.data % HUGE_PAGE_BYTES == 0
    assert len(mapped.array) == HUGE_PAGE_BYTES
    assert np.frombuffer(mapped.memory, np.uint8)[mapped.start :].ctypes.data == mapped.array.ctypes.data


@pytest.mark.skipif(not mapped_memory._can_collapse(), reason="needs Linux 6.1")
@pytest.mark.skipif(not allows_huge_pages(), reason="the system has no huge pages")
def test_the_cache_takes_the_memory_that_it_uses_and_keeps_its_content() -> None:
    cache = KVCache([KVShape(2, 32, 32)] * 4, 512, 256, torch.empty(0))  # 16 MiB a layer, 64 KiB a block
    key_page = 32  # blocks
    keys, values = cache.arrays()
    keys[:, : 40 * 256], values[:, : 40 * 256] = 1, 2
    before = huge_bytes(keys)
    row = Row(
        token_ids=[0],
        prompt_length=1,
        start=0,
        count=1,
        block_table=[key_page + 1],
        sampling=SamplingParams(max_tokens=1),
        seed=0,
        sample=True,
    )
    for _ in range(3):
        cache.fill([row])
    assert before == 0
    # Four layers of keys and of values, which the kernel maps as one; fewer if the machine has no free pages.
    assert huge_bytes(keys) in range(0, 8 * HUGE_PAGE_BYTES + 1, HUGE_PAGE_BYTES)
    assert (keys[:, : 40 * 256] == 1).all()
    assert (values[:, : 40 * 256] == 2).all()
    assert not keys[:, 40 * 256 :].any()


def huge_bytes(array: np.ndarray) -> int:
    """Return the bytes in huge pages of the mapping that an array is in."""
    at, found = array.ctypes.data, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        start, _, rest = line.partition("-")
        if rest and all(each in "0123456789abcdef" for each in start):
            found = int(start, 16) <= at < int(rest.split()[0], 16)
        elif found and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the array is mapped")


def test_an_older_kernel_gets_the_advice_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_memory, "_can_collapse", lambda: False)
    advised: list[mmap.mmap] = []
    monkeypatch.setattr(mapped_memory, "_advise_huge", advised.append)
    mapped = map_memory(HUGE_PAGE_BYTES, huge=False)
    filling = FillingRegions(mapped, [MIB], 2)
    filling.fill(2)
    assert advised == [mapped.memory]
