"""A weight matrix that stays in its file until it is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import accumulate
from typing import Any, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

A = TypeVar("A")

CHUNK_VALUES = 2**21
"""Number of values that are dequantized at once."""


@runtime_checkable
class WeightMatrix(Protocol):
    """Weights [out, in] that are read, and dequantized if necessary, a few rows at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows (outputs) and columns (inputs)."""
        ...

    @property
    def gguf_type(self) -> str | None:
        """Quantization of the rows as GGUF names it, such as ``Q4_K``; ``None`` if they have another form."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Return these rows as float32: [stop - start, in]."""
        ...

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of these rows in their GGUF quantization: [stop - start, bytes of a row]."""
        ...


class TensorMatrix:
    """A tensor [out, in] as a `WeightMatrix`."""

    gguf_type = None

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.detach()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the stored values."""
        return self._tensor.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        rows, columns = self._tensor.shape
        return rows, columns

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows as float32."""
        return self._tensor[start:stop].float()

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Raise `NotImplementedError`: a tensor has no blocks."""
        raise NotImplementedError


class StackedMatrix:
    """Matrices of the same inputs as one, such as those of queries, keys and values."""

    def __init__(self, parts: tuple[WeightMatrix, ...]) -> None:
        self.parts = parts
        """The matrices. Each may have a quantization of its own, as in Q4_K_M."""
        self._ends = list(accumulate(part.shape[0] for part in parts))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self._ends[-1], self.parts[0].shape[1]

    @property
    def gguf_type(self) -> str | None:
        """Quantization of all parts; ``None`` if they differ."""
        types = {part.gguf_type for part in self.parts}
        return types.pop() if len(types) == 1 else None

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows as float32."""
        return torch.cat([part.rows(*rows) for part, *rows in self._ranges(start, stop)])

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of rows of parts in the same quantization."""
        return np.concatenate([part.blocks(*rows) for part, *rows in self._ranges(start, stop)])

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[WeightMatrix, int, int]]:
        first = 0
        for part, end in zip(self.parts, self._ends, strict=True):
            if start < end and stop > first:
                yield part, max(start, first) - first, min(stop, end) - first
            first = end


def as_matrix(weight: Tensor | WeightMatrix) -> WeightMatrix:
    """Return a tensor as a matrix, and a matrix as it is."""
    return TensorMatrix(weight) if isinstance(weight, Tensor) else weight


def chunks(matrix: WeightMatrix, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows with about `CHUNK_VALUES` values, each a multiple of that number but the last."""
    rows, columns = matrix.shape
    step = max(1, CHUNK_VALUES // columns // multiple) * multiple
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


@overload
def materialize(value: Tensor | WeightMatrix, like: Tensor) -> Tensor: ...
@overload
def materialize(value: A, like: Tensor) -> A: ...
def materialize(value: Any, like: Tensor) -> Any:
    """Return a matrix as a tensor in the dtype and on the device of ``like``.

    A tensor is returned as it is. In a tuple or a dataclass, such as a layer, all matrices are replaced.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, WeightMatrix):
        whole = like.new_empty(value.shape)
        for start, stop in chunks(value):
            whole[start:stop] = value.rows(start, stop)
        return whole
    if isinstance(value, tuple):
        return tuple(materialize(each, like) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: materialize(getattr(value, f.name), like) for f in fields(value)})
    return value
