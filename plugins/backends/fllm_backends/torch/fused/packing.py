"""Quantize weights to 4 or 8 bits and pack them in the order in which the kernels read them.

Weights are quantized in groups of 32 of one row. Each group has a scale and a minimum in float16, and a
weight is ``minimum + scale * q``. Sixteen rows make a *panel*. A panel has one record for each group, with
the quantized values of all sixteen rows (four consecutive ones of each row in turn), then their scales, then
their minima. So the whole matrix is one stream.

A matrix whose values fit into 4 bits without rounding is kept in 4 bits: this is the case for GGUF's Q4_0 and
Q4_1. Others are rounded to 8 bits, which is exact for Q8_0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.intrinsics import round_to_half
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.weight_matrix import WeightMatrix, chunks

GROUP = 32
"""Weights of one row that share a scale."""
PANEL = 16
"""Rows whose groups form one record."""
TAIL = 2 * PANEL * 2
"""Bytes of the scales and minima of a record."""
RECORD_4, RECORD_8 = GROUP * PANEL // 2 + TAIL, GROUP * PANEL + TAIL

EXACT_ERROR = np.float32(1e-6)
"""Sum of squared errors, in squared scales, up to which a group counts as exact: float32 itself rounds."""

single = np.float32

Floats = NDArray[np.float32]


class PackedMatrix(NamedTuple):
    """A packed matrix of [out, in] weights."""

    records: NDArray[np.uint8]
    """[out / PANEL, in / GROUP, RECORD_4 or RECORD_8]"""
    bias: Floats
    """[out]"""


def can_pack(rows: int, columns: int) -> bool:
    """Return whether a matrix of this shape can be packed."""
    return rows % PANEL == 0 and columns % GROUP == 0


def pack(matrix: WeightMatrix, bias: Floats | None = None) -> PackedMatrix:
    """Pack [out, in] weights a few rows at a time; round them if necessary."""
    rows, columns = matrix.shape
    ranges = [*chunks(matrix, PANEL)]
    records = np.empty((rows // PANEL, columns // GROUP, RECORD_4), np.uint8)
    if not all(_pack_rows(matrix, *each, 4, records) for each in ranges):
        records = np.empty((rows // PANEL, columns // GROUP, RECORD_8), np.uint8)
        for each in ranges:
            _pack_rows(matrix, *each, 8, records)
    return PackedMatrix(records, np.zeros(rows, np.float32) if bias is None else bias.astype(np.float32))


def _pack_rows(matrix: WeightMatrix, start: int, stop: int, bits: int, records: NDArray[np.uint8]) -> bool:
    """Pack rows into ``records``; return False if their values do not fit into 4 bits."""
    weights = np.ascontiguousarray(matrix.rows(start, stop).numpy(), np.float32)
    groups = weights.reshape(stop - start, -1, GROUP)
    quantized = np.empty(groups.shape, np.uint8)
    grids = np.empty((*groups.shape[:2], 2), np.float32)
    if not quantize_matrix(groups, 2**bits - 1, bits == 4, quantized, grids):
        return False
    records[start // PANEL : stop // PANEL] = _records(quantized, grids, bits)
    return True


def _records(quantized: NDArray[np.uint8], grids: Floats, bits: int) -> NDArray[np.uint8]:
    """Arrange [rows, groups, GROUP] values and [rows, groups, 2] scales and minima by panels."""
    rows, groups, _ = quantized.shape
    records = np.empty((rows // PANEL, groups, RECORD_4 if bits == 4 else RECORD_8), np.uint8)
    quads = quantized.reshape(-1, PANEL, groups, GROUP // 4, 4).transpose(0, 2, 3, 1, 4)
    if bits == 4:
        quads = quads[:, :, ::2] | quads[:, :, 1::2] << np.uint8(4)
    records[..., :-TAIL] = quads.reshape(*records.shape[:2], -1)
    tails = grids.astype(np.float16).reshape(-1, PANEL, groups, 2).transpose(0, 2, 3, 1)
    records[..., -TAIL:] = np.ascontiguousarray(tails).reshape(*records.shape[:2], -1).view(np.uint8)
    return records


@kernel(fastmath=False)
def quantize_matrix(groups: Any, max_value: Any, exact: Any, quantized: Any, grids: Any) -> Any:
    """Quantize [rows, groups, GROUP] weights to 0 ... ``max_value``; if ``exact``, return False at an error.

    Each group gets the best of three grids: from its minimum to its maximum; around zero, up to its largest
    magnitude; around zero, with its largest magnitude at the end of the grid, as in Q4_0.
    """
    centre = single((max_value + 1) // 2)
    for row in range(len(groups)):
        for group in range(groups.shape[1]):
            weights = groups[row, group]
            low, high = weights.min(), weights.max()
            extreme = high if high > -low else low
            best_error = single(np.inf)
            scale = round_to_half((high - low) / single(max_value))
            for grid in range(3):
                if grid == 0:
                    minimum = round_to_half(low)
                else:
                    scale = round_to_half(
                        abs(extreme) / (centre - single(1)) if grid == 1 else -extreme / centre
                    )
                    minimum = -centre * scale
                error = quantize_group(weights, max_value, minimum, scale, quantized[row, group])
                if error < best_error:
                    best_error, grids[row, group, 0], grids[row, group, 1] = error, scale, minimum
                if error <= EXACT_ERROR * scale * scale:
                    break
            else:
                if exact:
                    return False
                minimum, scale = grids[row, group, 1], grids[row, group, 0]
                quantize_group(weights, max_value, minimum, scale, quantized[row, group])
    return True


@kernel()
def quantize_group(weights: Any, max_value: Any, minimum: Any, scale: Any, quantized: Any) -> Any:
    """Quantize to the nearest ``minimum + scale * q``; return the sum of squared errors."""
    inverse = single(1) / scale if scale != 0 else single(0)
    error = single(0)
    for i in range(len(weights)):
        scaled = (weights[i] - minimum) * inverse + single(0.5)
        number = np.uint8(min(max(scaled, single(0)), single(max_value)))
        quantized[i] = number
        difference = weights[i] - (minimum + scale * single(number))
        error += difference * difference
    return error
