"""Pack weights in the order in which the kernels read them.

GGUF's blocks are repacked as they are, see `gguf_blocks`. Other weights are quantized in groups of 32 of one
row: in the smallest format that holds all values of the matrix without rounding, otherwise in 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.formats import (
    GROUP,
    INT4,
    PANEL,
    Q4_0,
    Q4_1,
    Q5_0,
    Q8_0,
    Q8_1,
    Format,
    Scales,
)
from fllm_backends.torch.fused.gguf_blocks import REPACK, QuantizedRows
from fllm_backends.torch.fused.intrinsics import round_to_half
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.panel_memory import PanelMemory
from fllm_backends.torch.weight_matrix import StackedMatrix, WeightMatrix, chunks

EXACT_ERROR = np.float32(1e-6)
"""Sum of squared errors, in squared scales, up to which a group counts as exact: float32 itself rounds."""

EXACT = Q4_0, INT4, Q4_1, Q5_0, Q8_0
"""Formats in which weights are kept if all of a matrix fit, the smallest first."""
ROUNDED = Q8_1
"""Format of other weights."""

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


def pack(matrix: WeightMatrix, bias: Floats | None = None, memory: PanelMemory | None = None) -> PackedMatrix:
    """Pack [out, in] weights a few rows at a time; round them if necessary."""
    parts = matrix.parts if isinstance(matrix, StackedMatrix) else (matrix,)
    if any(part.shape[0] % PANEL for part in parts):
        parts = (matrix,)
    zeros = np.zeros(matrix.shape[0], np.float32)
    return PackedMatrix(
        tuple(_pack_part(part, memory) for part in parts),
        zeros if bias is None else bias.astype(np.float32),
    )


def _pack_part(matrix: WeightMatrix, memory: PanelMemory | None) -> PackedPart:
    """Pack GGUF's blocks as they are; quantize other weights in the smallest format that holds them."""
    if repack := REPACK.get(matrix.gguf_type or ""):
        form, read = repack
        return PackedPart(form, _pack_rows(matrix, form, memory, lambda *rows: read(matrix.blocks(*rows))))
    for form in EXACT:
        with suppress(InexactError):
            return PackedPart(form, _pack_rows(matrix, form, memory, partial(_quantize, matrix, form)))
    return PackedPart(ROUNDED, _pack_rows(matrix, ROUNDED, memory, partial(_quantize, matrix, ROUNDED)))


def _pack_rows(
    matrix: WeightMatrix, form: Format, memory: PanelMemory | None, read: Callable[[int, int], QuantizedRows]
) -> Bytes:
    """Return the panels of rows that are read a few at a time."""
    rows, columns = matrix.shape
    panels = None
    for start, stop in chunks(matrix, PANEL):
        quantized = read(start, stop)
        if panels is None:  # a format that does not fit fails before this
            shape = rows // PANEL, columns // GROUP // form.groups, form.block_bytes
            panels = memory.allocate(*shape) if memory else np.empty(shape, np.uint8)
        write_panels(form, quantized, panels[start // PANEL : stop // PANEL])
    assert panels is not None, "a matrix has rows"
    return panels


def write_panels(form: Format, rows: QuantizedRows, panels: Bytes) -> None:
    """Write quantized rows to [rows / PANEL, blocks, bytes of a block]."""
    count, blocks = panels.shape[:2]
    write_values(rows.values.view(np.uint32), form.groups, form.bits, panels.view(np.uint32))
    end = form.groups * form.value_bytes
    for numbers in rows.scales:
        by_panel = numbers.reshape(count, PANEL, blocks, -1).transpose(0, 2, 3, 1).copy()
        bytes_of_rows = by_panel.reshape(count, blocks, -1).view(np.uint8)
        panels[..., end : end + bytes_of_rows.shape[-1]] = bytes_of_rows
        end += bytes_of_rows.shape[-1]


@kernel(fastmath=False)
def write_values(quads: Any, groups: Any, bits: Any, panels: Any) -> None:
    """Write the values of [rows, quads of four bytes] to [panels, blocks, quads], as `formats` says."""
    low, high = np.uint32(0x0F0F0F0F), bits - 4
    for panel in range(len(panels)):
        for block in range(panels.shape[1]):
            for group in range(groups):
                first, target = (block * groups + group) * (GROUP // 4), group * bits * PANEL
                for row in range(PANEL):
                    values = quads[panel * PANEL + row, first : first + GROUP // 4]
                    lines = panels[panel, block, target + row :]
                    if bits == 8:
                        for i in range(GROUP // 4):
                            lines[i * PANEL] = values[i]
                        continue
                    for i in range(GROUP // 8):
                        lines[i * PANEL] = values[2 * i] & low | (values[2 * i + 1] & low) << 4
                    for line in range(high):
                        bytes_of_line, share = np.uint32(0), 8 // high
                        for i in range(share):
                            bytes_of_line |= (values[line * share + i] >> 4 & low) << i * high
                        lines[(GROUP // 8 + line) * PANEL] = bytes_of_line


class InexactError(ValueError):
    """Weights do not fit a format without rounding."""


def _quantize(matrix: WeightMatrix, form: Format, start: int, stop: int) -> QuantizedRows:
    """Quantize rows. Raise `InexactError` if the format rounds them and is not `ROUNDED`."""
    groups = matrix.rows(start, stop).numpy().reshape(stop - start, -1, GROUP)
    values, grids = np.empty(groups.shape, np.uint8), np.empty((*groups.shape[:2], 2), np.float32)
    max_value, zeros = 2**form.bits - 1, form.scales is Scales.ZEROS
    if form == ROUNDED:
        round_matrix(groups, max_value, values, grids)
    elif not fit_matrix(groups, max_value, form.minima and not zeros, zeros, values, grids):
        raise InexactError
    scales: list[NDArray[Any]] = [grids[..., :1].astype(np.float16)]
    if form.minima:
        scales.append(grids[..., 1:].astype(np.uint8 if zeros else np.float16))
    return QuantizedRows(values.reshape(stop - start, -1), scales)


@kernel(fastmath=False, allocates=True)
def round_matrix(groups: Any, max_value: Any, quantized: Any, grids: Any) -> None:
    """Quantize [rows, groups, GROUP] weights to 0 ... ``max_value``; store scales and minima.

    Each group gets the best of three grids: from its minimum to its maximum; around zero, up to its largest
    magnitude; around zero, with its largest magnitude at the end of the grid.
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
                minimum, scale = grids[row, group, 1], grids[row, group, 0]
                quantize_group(weights, max_value, minimum, scale, quantized[row, group])


@kernel(fastmath=False, allocates=True)
def fit_matrix(groups: Any, max_value: Any, minima: Any, zeros: Any, quantized: Any, grids: Any) -> Any:
    """Quantize [rows, groups, GROUP] weights to 0 ... ``max_value``; return False if some do not fit.

    Store scales, and minima or zeros if the grid has them; otherwise it is symmetric. The scale of a group is
    that of the group before it, as if they were quantized together; or it follows from the extremes, as in
    GGUF; or from the smallest step between two weights.
    """
    centre = single((max_value + 1) // 2)
    # float16 rounds the scale by 2^-11 at most, which moves the last of the values.
    allowed = EXACT_ERROR if minima else single(GROUP) * (centre / single(2048)) ** 2
    for row in range(len(groups)):
        scale = single(0)
        for group in range(groups.shape[1]):
            weights = groups[row, group]
            low, high = weights.min(), weights.max()
            step, best_error = single(0), single(np.inf)
            for guess in range(6):
                if guess == 1:
                    scale = (high - low) / single(max_value)
                elif guess == 2:
                    scale = -(high if high > -low else low) / centre
                elif guess == 3:
                    step = smallest_step(weights)
                if guess >= 3:
                    scale = (high - low) / max(np.rint((high - low) * single(guess - 2) / step), single(1))
                scale = round_to_half(scale)
                zero = centre
                if zeros and scale != 0:
                    zero = min(max(np.rint(-low / scale), single(0)), single(max_value))
                minimum = round_to_half(low) if minima else -scale * zero
                error = quantize_group(weights, max_value, minimum, scale, quantized[row, group])
                exact = error <= EXACT_ERROR * scale * scale
                if exact or error <= min(best_error, allowed * scale * scale):
                    best_error = error
                    grids[row, group, 0], grids[row, group, 1] = scale, minimum if minima else zero
                if exact:
                    break
            else:
                if best_error == np.inf:
                    return False
                scale = grids[row, group, 0]
                minimum = grids[row, group, 1] if minima else -scale * grids[row, group, 1]
                quantize_group(weights, max_value, minimum, scale, quantized[row, group])
    return True


@kernel(fastmath=False, allocates=True)
def smallest_step(weights: Any) -> Any:
    """Return the smallest difference between two weights that is not rounding; infinity without one."""
    ascending = np.sort(weights)
    noise = (ascending[-1] - ascending[0]) * single(1e-4)
    best = single(np.inf)
    for i in range(len(ascending) - 1):
        step = ascending[i + 1] - ascending[i]
        if noise < step < best:
            best = step
    return best


@kernel(allocates=True)
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
