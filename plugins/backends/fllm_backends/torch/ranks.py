"""The ranks among which the weights of a model are divided, and how they combine their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from fllm_backends.checkpoints.architecture import Architecture


class Ranks(Protocol):
    """The ranks of one model, seen from one of them. All ranks call the same methods in the same order."""

    rank: int
    """Number of this rank, from 0."""
    size: int
    """Number of ranks."""

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of the ranks' tensors, which have the same shape. ``x`` may be overwritten."""
        ...

    def concatenate(self, x: Tensor, widths: Sequence[int]) -> Tensor:
        """Return the ranks' tensors, joined along the last dimension, where they have these sizes."""
        ...

    def broadcast(self, x: Tensor) -> Tensor:
        """Return the tensor of rank 0. ``x`` has its shape, and is overwritten on the other ranks."""
        ...

    def minimum(self, number: int) -> int:
        """Return the smallest of the ranks' numbers."""
        ...


class Alone:
    """The only rank of a model that is not divided."""

    rank, size = 0, 1

    def sum(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x

    def concatenate(self, x: Tensor, widths: Sequence[int]) -> Tensor:  # noqa: ARG002
        """Return ``x``."""
        return x

    def broadcast(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x

    def minimum(self, number: int) -> int:
        """Return ``number``."""
        return number


ALONE = Alone()

_UNITS = (256, 32, 16, 1)
"""Sizes of parts are multiples of one of these: blocks of quantized weights, and rows of our kernels."""


def part(total: int, rank: int, size: int) -> range:
    """Return the part of ``total`` rows or columns that a rank has. Later ranks may have a unit more."""
    unit = next((each for each in _UNITS if total % each == 0 and total // each >= size), 1)
    units = total // unit
    return range(rank * units // size * unit, (rank + 1) * units // size * unit)


def head_parts(a: Architecture, rank: int, size: int) -> tuple[range, range]:
    """Return the heads and the key-value heads of a rank.

    Ranks share a key-value head if there are fewer of them than ranks: each of these computes it.
    """
    shared = a.heads // a.kv_heads
    if size <= a.kv_heads:
        first, last = rank * a.kv_heads // size, (rank + 1) * a.kv_heads // size
        return range(first * shared, last * shared), range(first, last)
    own, kv_head = a.heads // size, rank * a.kv_heads // size
    return range(rank * own, (rank + 1) * own), range(kv_head, kv_head + 1)
