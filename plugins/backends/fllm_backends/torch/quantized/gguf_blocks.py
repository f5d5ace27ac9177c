"""Write grids in the layout of GGUF's simplest quantizations, which the kernels on a CPU read as they are.

Each block has 32 neighbouring weights of a row (ggml-common.h): a scale d in float16, for Q4_1 also a minimum
m, then the integers q. A weight is d * (q - 8) in Q4_0, d * q + m in Q4_1, and d * q with signed q in Q8_0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 32

Bytes = NDArray[np.uint8]


def q4_blocks(values: Tensor, scales: Tensor, minima: Tensor | None) -> Bytes:
    """Return [rows, in] integers of 0 to 15 as Q4_0, or with minima as Q4_1: [rows, bytes of a row].

    ``scales`` and ``minima`` are [rows, in / 32].
    """
    halves: Bytes = values.numpy().astype(np.uint8).reshape(len(values), -1, 2, BLOCK // 2)
    numbers = [scales] if minima is None else [scales, minima]
    return _join(numbers, halves[:, :, 0] | halves[:, :, 1] << np.uint8(4))


def q8_blocks(values: Tensor, scales: Tensor) -> Bytes:
    """Return [rows, in] signed integers of 8 bits as Q8_0: [rows, bytes of a row]."""
    return _join([scales], values.numpy().astype(np.int8).reshape(len(values), -1, BLOCK).view(np.uint8))


def _join(numbers: list[Tensor], integers: Bytes) -> Bytes:
    halves = [number.numpy().astype(np.float16)[..., None].view(np.uint8) for number in numbers]
    blocks = np.concatenate([*halves, integers], axis=2)
    return blocks.reshape(len(blocks), -1)
