"""Unpack the packed weights of the fused CPU kernels."""

from __future__ import annotations

import numpy as np

from fllm_backends.torch.fused.formats import GROUP, PANEL, Scales
from fllm_backends.torch.fused.packing import Floats, PackedMatrix, PackedPart


def unpack(packed: PackedMatrix) -> Floats:
    """Return the [out, in] weights that the kernels compute with."""
    return np.concatenate([unpack_part(part) for part in packed.parts])


def unpack_part(part: PackedPart) -> Floats:
    """Return the weights of some rows."""
    form, (panels, blocks, _) = part.format, part.panels.shape
    end = form.groups * form.value_bytes
    lines = part.panels[..., :end].reshape(panels, blocks, form.groups, form.bits, 4 * PANEL)
    quads = [_quad(lines, form.bits, at) for at in range(GROUP // 4)]
    values = np.stack(quads, axis=3).reshape(panels, blocks, form.groups, 2, GROUP // 8, PANEL, 4)
    grids = [grid[:, :, :, :, None, :, None] for grid in _grids(part, part.panels[..., end:])]
    weights: Floats = values * grids[0] + grids[1]
    return weights.transpose(0, 5, 1, 2, 3, 4, 6).reshape(panels * PANEL, -1)


def _quad(lines: np.ndarray, bits: int, at: int) -> np.ndarray:
    if bits == 8:
        return lines[..., at, :]
    values = lines[..., at // 2, :] >> np.uint8(at % 2 * 4) & np.uint8(15)
    if bits > 4:
        share = 8 // (bits - 4)
        high = lines[..., 4 + at // share, :] >> np.uint8(at % share * (bits - 4))
        values |= (high & np.uint8(2 ** (bits - 4) - 1)) << np.uint8(4)
    return values


def _grids(part: PackedPart, tails: np.ndarray) -> tuple[Floats, Floats]:
    """Return scales and minima: [panels, blocks, groups, halves, PANEL] each."""
    form, centre = part.format, 2 ** (part.format.bits - 1)

    def numbers(start: int, dtype: type[np.generic], count: int) -> np.ndarray:
        size = count * PANEL * np.dtype(dtype).itemsize
        read = np.ascontiguousarray(tails[..., start : start + size]).view(dtype)
        return read.reshape(*tails.shape[:2], count, PANEL)

    if form.scales is Scales.GROUP:
        grids = numbers(0, np.float16, 1 + form.minima).astype(np.float32)
        scales = grids[:, :, :1, None]
        return scales, grids[:, :, 1:, None] if form.minima else -centre * scales
    if form.scales is Scales.ZEROS:
        scales = numbers(0, np.float16, 1).astype(np.float32)[:, :, :, None]
        return scales, -scales * numbers(2 * PANEL, np.uint8, 1)[:, :, :, None]
    if form.scales is Scales.NESTED:
        low = numbers(0, np.uint8, 8).astype(np.int32)
        shifts = 4 * np.arange(8)[:, None]
        high = numbers(8 * PANEL, np.int32, 1) >> shifts
        shared = numbers(12 * PANEL, np.float16, 2).astype(np.float32)
        scales = shared[:, :, :1] * (low & 15 | (high & 3) << 4)
        minima = shared[:, :, 1:] * (low >> 4 | (high >> 2 & 3) << 4)
        return scales[..., None, :].astype(np.float32), minima[..., None, :].astype(np.float32)
    scales = numbers(0, np.int8, 16) * numbers(16 * PANEL, np.float16, 1).astype(np.float32)
    scales = scales.reshape(*scales.shape[:2], 8, 2, PANEL).astype(np.float32)
    return scales, -centre * scales
