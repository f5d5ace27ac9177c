"""Weights as whole numbers of 4 or 8 bits, in the order in which the kernels read them.

Weights lie in groups of 32 of one row; each group has a ``step`` and a ``low``, in float16, and a weight is
``low + step * q``. Sixteen rows make a *panel*: one record for each group, which holds the numbers of all
sixteen, four consecutive ones of each row side by side, and then their steps and lows. So the whole matrix
is one stream.

A matrix whose numbers fit into 4 bits without any rounding is kept in 4 bits: that is what GGUF's Q4_0 and
Q4_1 are. Every other is rounded to 8, which is exact for Q8_0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.intrinsics import round_half
from fllm_backends.torch.fused.jit import kernel

GROUP = 32
"""Weights of one row that share a step."""
PANEL = 16
"""Rows whose groups lie in one record."""
TAIL = 2 * PANEL * 2
"""Bytes of a record's steps and lows."""
RECORD_4, RECORD_8 = GROUP * PANEL // 2 + TAIL, GROUP * PANEL + TAIL

EXACT = np.float32(1e-6)
"""Sum of squared misses, in steps, of a group that counts as exact: float32 itself rounds a little."""

single = np.float32

Floats = NDArray[np.float32]


class Packed(NamedTuple):
    """A matrix of [out, in] weights."""

    records: NDArray[np.uint8]
    """[out / PANEL, in / GROUP, RECORD_4 or RECORD_8]"""
    bias: Floats
    """[out]"""


def fits(rows: int, columns: int) -> bool:
    """Whether a matrix of this shape can be packed."""
    return rows % PANEL == 0 and columns % GROUP == 0


def pack(weights: Floats, bias: Floats | None = None) -> Packed:
    """Round [out, in] weights, if they must be rounded."""
    rows, columns = weights.shape
    groups = np.ascontiguousarray(weights, np.float32).reshape(rows, columns // GROUP, GROUP)
    numbers = np.empty(groups.shape, np.uint8)
    grids = np.empty((*groups.shape[:2], 2), np.float32)
    narrow = round_all(groups, 15, True, numbers, grids)
    if not narrow:
        round_all(groups, 255, False, numbers, grids)
    return Packed(
        _records(numbers, grids, bits=4 if narrow else 8),
        np.zeros(rows, np.float32) if bias is None else bias.astype(np.float32),
    )


def unpack(packed: Packed) -> Floats:
    """The [out, in] weights that the kernels compute with."""
    records = packed.records
    panels, groups, size = records.shape
    quads = records[..., : size - TAIL].reshape(panels, groups, -1, PANEL, 4)
    if size == RECORD_4:
        quads = np.stack([quads & np.uint8(15), quads >> np.uint8(4)], axis=3)
    numbers = quads.reshape(panels, groups, -1, PANEL, 4)
    grids = np.ascontiguousarray(records[..., size - TAIL :]).view(np.float16).astype(np.float32)
    steps, lows = (grid[..., None, :, None] for grid in np.split(grids, 2, axis=-1))
    values: Floats = numbers * steps + lows
    return values.transpose(0, 3, 1, 2, 4).reshape(panels * PANEL, -1)


def _records(numbers: NDArray[np.uint8], grids: Floats, bits: int) -> NDArray[np.uint8]:
    """[rows, groups, GROUP] numbers and [rows, groups, 2] grids, by panels."""
    rows, groups, _ = numbers.shape
    records = np.empty((rows // PANEL, groups, RECORD_4 if bits == 4 else RECORD_8), np.uint8)
    quads = numbers.reshape(-1, PANEL, groups, GROUP // 4, 4).transpose(0, 2, 3, 1, 4)
    if bits == 4:
        quads = quads[:, :, ::2] | quads[:, :, 1::2] << np.uint8(4)
    records[..., :-TAIL] = quads.reshape(*records.shape[:2], -1)
    tails = grids.astype(np.float16).reshape(-1, PANEL, groups, 2).transpose(0, 2, 3, 1)
    records[..., -TAIL:] = np.ascontiguousarray(tails).reshape(*records.shape[:2], -1).view(np.uint8)
    return records


@kernel(fast=False)
def round_all(groups: Any, most: Any, exactly: Any, numbers: Any, grids: Any) -> Any:
    """Round [rows, groups, GROUP] weights to 0 ... ``most``; False at the first miss, if it is to be exact.

    Each group has the best of three grids: from its least weight to its greatest; around zero, to its
    greatest by size; around zero, that one the last at its end, as Q4_0 has it.
    """
    centre = single((most + 1) // 2)
    for row in range(len(groups)):
        for group in range(groups.shape[1]):
            weights = groups[row, group]
            low, high = weights.min(), weights.max()
            far = high if high > -low else low
            least = single(np.inf)
            step = round_half((high - low) / single(most))
            for grid in range(3):
                if grid == 0:
                    first = round_half(low)
                else:
                    step = round_half(abs(far) / (centre - single(1)) if grid == 1 else -far / centre)
                    first = -centre * step
                missed = round_group(weights, most, first, step, numbers[row, group])
                if missed < least:
                    least, grids[row, group, 0], grids[row, group, 1] = missed, step, first
                if missed <= EXACT * step * step:
                    break
            else:
                if exactly:
                    return False
                first, step = grids[row, group, 1], grids[row, group, 0]
                round_group(weights, most, first, step, numbers[row, group])
    return True


@kernel()
def round_group(weights: Any, most: Any, first: Any, step: Any, numbers: Any) -> Any:
    """Round to the nearest of ``first + step * number``; gives the sum of the squared misses."""
    inverse = single(1) / step if step != 0 else single(0)
    missed = single(0)
    for i in range(len(weights)):
        scaled = (weights[i] - first) * inverse + single(0.5)
        number = np.uint8(min(max(scaled, single(0)), single(most)))
        numbers[i] = number
        miss = weights[i] - (first + step * single(number))
        missed += miss * miss
    return missed
