"""Unpack the packed weights of the fused CPU kernels."""

from __future__ import annotations

import numpy as np

from fllm_backends.torch.fused.packing import PANEL, RECORD_4, TAIL, Floats, PackedMatrix


def unpack(packed: PackedMatrix) -> Floats:
    """Return the [out, in] weights that the kernels compute with."""
    records = packed.records
    panels, groups, size = records.shape
    quads = records[..., : size - TAIL].reshape(panels, groups, -1, PANEL, 4)
    if size == RECORD_4:
        quads = np.stack([quads & np.uint8(15), quads >> np.uint8(4)], axis=3)
    quantized = quads.reshape(panels, groups, -1, PANEL, 4)
    grids = np.ascontiguousarray(records[..., size - TAIL :]).view(np.float16).astype(np.float32)
    scales, minima = (grid[..., None, :, None] for grid in np.split(grids, 2, axis=-1))
    values: Floats = quantized * scales + minima
    return values.transpose(0, 3, 1, 2, 4).reshape(panels * PANEL, -1)
