"""Pack weights in the order in which the kernels read them.

GGUF's blocks are repacked as they are, see `gguf_blocks`. Other weights are quantized in groups of 32 of one
row: to 4 bits if all values of the matrix fit without rounding, otherwise to 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.formats import GROUP, PANEL, Q4_0, Q4_1, Q8_0, Q8_1, Format
from fllm_backends.torch.fused.gguf_blocks import REPACK, QuantizedRows
from fllm_backends.torch.fused.intrinsics import round_to_half
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.weight_matrix import StackedMatrix, WeightMatrix, chunks

EXACT_ERROR = np.float32(1e-6)
"""Sum of squared errors, in squared scales, up to which a group counts as exact: float32 itself rounds."""

single = np.float32

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class PackedPart(NamedTuple):
    """Packed rows that have the same format."""

    format: Format
    panels: Bytes
    """[rows / PANEL, blocks, bytes of a block]"""


class PackedMatrix(NamedTuple):
    """A packed matrix of [out, in] weights. Its parts are consecutive rows."""

    parts: tuple[PackedPart, ...]
    bias: Floats
    """[out]"""


def can_pack(rows: int, columns: int) -> bool:
    """Return whether a matrix of this shape can be packed."""
    return rows % PANEL == 0 and columns % GROUP == 0


def panel_addresses(matrix: PackedMatrix) -> NDArray[np.int64]:
    """Return the address of each panel."""
    return np.concatenate(
        [
            part.panels.ctypes.data + np.arange(len(part.panels)) * part.panels[0].nbytes
            for part in matrix.parts
        ]
    )


def pack(matrix: WeightMatrix, bias: Floats | None = None) -> PackedMatrix:
    """Pack [out, in] weights a few rows at a time; round them if necessary."""
    parts = matrix.parts if isinstance(matrix, StackedMatrix) else (matrix,)
    if any(part.shape[0] % PANEL for part in parts):
        parts = (matrix,)
    zeros = np.zeros(matrix.shape[0], np.float32)
    return PackedMatrix(tuple(map(_pack_part, parts)), zeros if bias is None else bias.astype(np.float32))


def _pack_part(matrix: WeightMatrix) -> PackedPart:
    """Pack GGUF's blocks as they are; quantize other weights in the smallest format that holds them."""
    if repack := REPACK.get(matrix.gguf_type or ""):
        form, read = repack
        return PackedPart(form, _pack_rows(matrix, form, lambda *rows: read(matrix.blocks(*rows))))
    for form in (Q4_0, Q4_1, Q8_0):
        with suppress(InexactError):
            return PackedPart(form, _pack_rows(matrix, form, partial(_quantize, matrix, form, True)))
    return PackedPart(Q8_1, _pack_rows(matrix, Q8_1, partial(_quantize, matrix, Q8_1, False)))


def _pack_rows(matrix: WeightMatrix, form: Format, read: Callable[[int, int], QuantizedRows]) -> Bytes:
    """Return the panels of rows that are read a few at a time."""
    rows, columns = matrix.shape
    panels = np.empty((rows // PANEL, columns // GROUP // form.groups, form.block_bytes), np.uint8)
    for start, stop in chunks(matrix, PANEL):
        write_panels(form, read(start, stop), panels[start // PANEL : stop // PANEL])
    return panels


def write_panels(form: Format, rows: QuantizedRows, panels: Bytes) -> None:
    """Write quantized rows to [rows / PANEL, blocks, bytes of a block]."""
    count, blocks = panels.shape[:2]
    quads = rows.values.view(np.uint32).reshape(count, PANEL, blocks, form.groups, GROUP // 4)
    values = quads.transpose(0, 2, 3, 4, 1).copy().view(np.uint8)
    end = form.groups * form.value_bytes
    target = panels[..., :end].reshape(count, blocks, form.groups, form.bits, 4 * PANEL)
    if form.bits == 8:
        target[:] = values
    else:
        np.bitwise_and(values[..., ::2, :], 15, out=target[..., :4, :])
        target[..., :4, :] |= values[..., 1::2, :] << np.uint8(4)
        high = form.bits - 4
        for at in range(GROUP // 4 if high else 0):
            line, place = divmod(at * high, 8)
            bits = values[..., at, :] >> np.uint8(4) << np.uint8(place)
            target[..., 4 + line, :] = bits if place == 0 else target[..., 4 + line, :] | bits
    for numbers in rows.scales:
        by_panel = numbers.reshape(count, PANEL, blocks, -1).transpose(0, 2, 3, 1).copy()
        bytes_of_rows = by_panel.reshape(count, blocks, -1).view(np.uint8)
        panels[..., end : end + bytes_of_rows.shape[-1]] = bytes_of_rows
        end += bytes_of_rows.shape[-1]


class InexactError(ValueError):
    """Weights do not fit a format without rounding."""


def _quantize(matrix: WeightMatrix, form: Format, exact: bool, start: int, stop: int) -> QuantizedRows:
    """Quantize rows; if ``exact``, raise `InexactError` for those that do not fit the format."""
    groups = matrix.rows(start, stop).numpy().reshape(stop - start, -1, GROUP)
    values, grids = np.empty(groups.shape, np.uint8), np.empty((*groups.shape[:2], 2), np.float32)
    if not quantize_matrix(groups, 2**form.bits - 1, form.minima, exact, values, grids):
        raise InexactError
    scales = [grids[..., :1], grids[..., 1:]][: 1 + form.minima]
    return QuantizedRows(values.reshape(stop - start, -1), [numbers.astype(np.float16) for numbers in scales])


@kernel(fastmath=False)
def quantize_matrix(groups: Any, max_value: Any, minima: Any, exact: Any, quantized: Any, grids: Any) -> Any:
    """Quantize [rows, groups, GROUP] weights to 0 ... ``max_value``; if ``exact``, return False at an error.

    Each group gets the best of three grids: from its minimum to its maximum, if there are ``minima``; around
    zero, up to its largest magnitude; around zero, with its largest magnitude at the end of the grid, as in
    Q4_0.
    """
    centre = single((max_value + 1) // 2)
    for row in range(len(groups)):
        for group in range(groups.shape[1]):
            weights = groups[row, group]
            low, high = weights.min(), weights.max()
            extreme = high if high > -low else low
            best_error = single(np.inf)
            scale = round_to_half((high - low) / single(max_value))
            for grid in range(0 if minima else 1, 3):
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
