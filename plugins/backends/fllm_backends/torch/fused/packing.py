"""Weights as int8, in the order in which the kernels read them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GROUP = 32
"""Weights of one row that share a scale."""
PACKED = 4
"""Rows whose groups lie side by side, so that reading them all is one stream."""

Floats = NDArray[np.float32]


class Packed(NamedTuple):
    """A matrix of [out, in] weights; of several layers, with a first dimension more."""

    weights: NDArray[np.int8]
    """[out / PACKED, in / GROUP, PACKED, GROUP]"""
    scales: Floats
    """[out / PACKED, in / GROUP, PACKED]: what a weight of 1 is worth."""
    bias: Floats
    """[out]"""


def fits(rows: int, columns: int) -> bool:
    """Whether a matrix of this shape can be packed."""
    return rows % PACKED == 0 and columns % GROUP == 0


def pack(weights: Floats, bias: Floats | None = None) -> Packed:
    """Round [out, in] weights to int8, symmetrically, by the largest of each group."""
    rows, columns = weights.shape
    groups = weights.reshape(rows // PACKED, PACKED, columns // GROUP, GROUP)
    scales = np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)
    scales[scales == 0] = 1
    rounded = np.rint(groups / scales).astype(np.int8)
    return Packed(
        np.ascontiguousarray(rounded.transpose(0, 2, 1, 3)),
        np.ascontiguousarray(scales[..., 0].transpose(0, 2, 1)),
        np.zeros(rows, np.float32) if bias is None else bias.astype(np.float32),
    )


def unpack(packed: Packed) -> Floats:
    """The [out, in] weights that the kernels compute with."""
    whole = packed.weights * packed.scales[..., None]
    return whole.transpose(0, 2, 1, 3).reshape(len(packed.bias), -1)


def stack(layers: list[Packed]) -> Packed:
    """The matrices of all layers, one after the other."""
    return Packed(*(np.stack(parts) for parts in zip(*layers, strict=True)))
