"""Pad weights with zeros to the sizes that the kernels need."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm_backends.torch.fused.formats import GROUP
from fllm_backends.torch.weight_matrix import StackedMatrix, WeightMatrix

Places = NDArray[np.int64]
"""Where each row or column of a padded matrix comes from; -1 for zeros."""


def round_up(size: int, multiple: int = GROUP) -> int:
    """Return the next multiple."""
    return -(-size // multiple) * multiple


def spread(count: int, size: int, padded: int, order: Places | None = None) -> Places:
    """Return the places of ``count`` parts of ``size`` rows, each padded; ``order`` is that within a part."""
    part = np.full(padded, -1)
    part[:size] = np.arange(size) if order is None else order
    return np.concatenate([np.where(part < 0, -1, part + index * size) for index in range(count)])


def take(tensor: Tensor, places: Places, dim: int = 0) -> Tensor:
    """Return a tensor whose rows, or columns if ``dim`` is 1, come from these places."""
    if np.array_equal(places, np.arange(tensor.shape[dim])):
        return tensor
    index = torch.from_numpy(places)
    taken = tensor.index_select(dim, index.clamp_min(0))
    return taken.index_fill_(dim, torch.nonzero(index < 0)[:, 0], 0)


def take_norm(weight: Tensor, places: Places) -> Tensor:
    """Return the weight of an RMSNorm in these places, scaled: the mean over more elements is less.

    The epsilon must be multiplied by ``len(weight) / len(places)``.
    """
    taken = take(weight, places)
    return taken if len(taken) == len(weight) else taken * math.sqrt(len(weight) / len(taken))


def place(matrix: WeightMatrix, rows: Places, columns: Places) -> WeightMatrix:
    """Return a matrix whose rows and columns come from these places.

    If the matrix is a stack, so is the result: each part keeps its quantization. The places of the rows of a
    part must precede those of the next.
    """
    if all(np.array_equal(*both) for both in zip((rows, columns), map(np.arange, matrix.shape), strict=True)):
        return matrix
    if not isinstance(matrix, StackedMatrix):
        return PlacedMatrix(matrix, rows, columns)
    starts = np.cumsum([0, *(part.shape[0] for part in matrix.parts)])[:-1]
    edges = np.searchsorted(np.maximum.accumulate(rows), starts)
    parts = np.split(rows, edges[1:])
    return StackedMatrix(
        tuple(
            PlacedMatrix(part, np.where(own < 0, -1, own - start), columns)
            for part, own, start in zip(matrix.parts, parts, starts, strict=True)
            if len(own)
        )
    )


class PlacedMatrix:
    """A matrix whose rows and columns come from other places of another matrix."""

    def __init__(self, matrix: WeightMatrix, rows: Places, columns: Places) -> None:
        self._matrix = matrix
        self._rows = rows
        self._columns = columns
        self._whole_rows = np.array_equal(columns, np.arange(matrix.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self._rows), len(self._columns)

    @property
    def gguf_type(self) -> str | None:
        """Quantization of the rows, if they stay whole."""
        return self._matrix.gguf_type if self._whole_rows else None

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows as float32."""
        first, last, places = self._range(start, stop)
        return take(take(self._matrix.rows(first, last), places), self._columns, 1)

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of rows. A row of zeros has only zeros in every quantization."""
        first, last, places = self._range(start, stop)
        return take(torch.from_numpy(self._matrix.blocks(first, last)), places).numpy()

    def _range(self, start: int, stop: int) -> tuple[int, int, Places]:
        """Return the first and the last row to read, and places among them."""
        places = self._rows[start:stop]
        used = places[places >= 0]
        first, last = (int(used.min()), int(used.max()) + 1) if len(used) else (0, 1)
        return first, last, np.where(places < 0, -1, places - first)
