"""Ranks of a divided model in threads of one process, which exchange tensors without torch.distributed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
TIMEOUT = 60.0


class ThreadRanks:
    """One of several `Ranks`."""

    def __init__(self, rank: int, size: int, barrier: Barrier, shared: list[Tensor | None]) -> None:
        self.rank, self.size = rank, size
        self._barrier = barrier
        self._shared = shared

    def sum(self, x: Tensor) -> Tensor:
        return torch.stack(self._exchange(x)).sum(0)

    def concatenate(self, x: Tensor, widths: Sequence[int]) -> Tensor:
        parts = self._exchange(x)
        assert [part.shape[-1] for part in parts] == list(widths)
        return torch.cat(parts, -1)

    def broadcast(self, x: Tensor) -> Tensor:
        return self._exchange(x)[0]

    def minimum(self, number: int) -> int:
        return min(int(each) for each in self._exchange(torch.tensor(number)))

    def _exchange(self, x: Tensor) -> list[Tensor]:
        self._shared[self.rank] = x.clone()
        self._barrier.wait(TIMEOUT)
        tensors = [each for each in self._shared if each is not None]
        self._barrier.wait(TIMEOUT)
        return tensors


def run_ranks(size: int, work: Callable[[ThreadRanks], T]) -> list[T]:
    """Run ``work`` once for each rank, all at the same time. Return their results."""
    barrier, shared = Barrier(size), list[Tensor | None]([None] * size)

    def run(rank: int) -> T:
        try:
            return work(ThreadRanks(rank, size, barrier, shared))
        except BaseException:
            barrier.abort()  # so that the others do not wait
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
