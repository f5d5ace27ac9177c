"""Float8 and int8 weights with scales: of the tensor, of each row, or of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm.errors import ModelError
from fllm_backends.torch.quantized.gguf_blocks import BLOCK, q8_blocks
from fllm_backends.torch.quantized.weight import QuantizedWeight
from fllm_backends.torch.weight_matrix import StackedMatrix, WeightMatrix

_USUAL_BLOCK = 128


class ScaledWeight(QuantizedWeight):
    """``(values - zero_point) * scale``, where the values are float8 or int8: [..., out, in]."""

    def __init__(self, parts: Mapping[str, Tensor], block_shape: tuple[int, int] | None) -> None:
        self.values = parts["values"]
        """The values as they are stored: [..., out, in]."""
        self.shape = tuple(self.values.shape)
        self._scale = _Spread(parts["scale"], self.shape, block_shape)
        zero_point = parts.get("zero_point")
        self._zero_point = None if zero_point is None else _Spread(zero_point, self.shape, block_shape)

    @cached_property
    def row_scale(self) -> Tensor | None:
        """Scales of the rows, [out] float32, if each row has one and no zero point."""
        if self._zero_point or len(self.shape) != 2 or self._scale.divided[1] != 1:
            return None
        return self._scale.rows(0, self.shape[0])[:, 0].expand(self.shape[0]).contiguous()

    @property
    def gguf_type(self) -> str | None:
        """Quantization of GGUF that holds the rows: int8 with scales of rows is Q8_0."""
        is_row_scaled = self.values.dtype == torch.int8 and self.row_scale is not None
        return "Q8_0" if is_row_scaled and self.shape[1] % BLOCK == 0 else None

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of these rows as Q8_0."""
        assert self.row_scale is not None, "gguf_type says whether there are blocks"
        scales = self.row_scale[start:stop, None].expand(-1, self.shape[1] // BLOCK)
        return q8_blocks(self.values[start:stop], scales)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return these entries of the first dimension as float32."""
        values = self.values[start:stop].float()
        if self._zero_point:
            values -= self._zero_point.rows(start, stop)
        return values.mul_(self._scale.rows(start, stop))


def row_scaled(weight: Tensor | WeightMatrix, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Return values of this type, [out, in], and their scales, [out], if the weight is stored so."""
    parts = weight.parts if isinstance(weight, StackedMatrix) else (weight,)
    values, scales = [], []
    for part in parts:
        if not isinstance(part, ScaledWeight) or part.values.dtype != dtype or part.row_scale is None:
            return None
        values.append(part.values)
        scales.append(part.row_scale)
    return torch.cat(values), torch.cat(scales)


class _Spread:
    """Scales of blocks of a matrix, spread over its rows and columns."""

    def __init__(self, scale: Tensor, shape: tuple[int, ...], block: tuple[int, int] | None) -> None:
        self._shape = shape
        scale = _align(scale, shape)
        self._scale = scale
        self.divided = scale.shape[-2:]
        """Number of blocks in both dimensions."""
        self._sizes = [
            _block_size(size, blocks, block and block[at])
            for at, (size, blocks) in enumerate(zip(shape[-2:], self.divided, strict=True))
        ]

    def rows(self, start: int, stop: int) -> Tensor:
        """Return what the entries of the first dimension are multiplied with, in a shape that broadcasts."""
        if len(self._shape) > 2:
            scale = (self._scale[start:stop] if len(self._scale) > 1 else self._scale).float()
            return self._columns(scale.repeat_interleave(self._sizes[0], -2)[..., : self._shape[-2], :])
        return self._columns(self._scale[torch.arange(start, stop) // self._sizes[0]].float())

    def _columns(self, scale: Tensor) -> Tensor:
        if self.divided[1] == 1:
            return scale
        return scale.repeat_interleave(self._sizes[1], -1)[..., : self._shape[-1]]


def _align(scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return scales with as many dimensions as the matrix, in which each is 1 or divided into blocks."""
    if scale.numel() == 1:
        return scale.reshape([1] * len(shape))
    wide = scale
    if wide.ndim > len(shape):  # ModelOpt writes [blocks, 1, blocks, 1]
        wide = wide.reshape([size for size in wide.shape if size != 1])
    if wide.ndim < len(shape) and len(wide) == shape[0]:
        wide = wide.reshape(*wide.shape, *[1] * (len(shape) - wide.ndim))
    elif wide.ndim < len(shape) and wide.shape == shape[-2:-1]:
        wide = wide[:, None].expand(1, -1, 1)
    if wide.ndim != len(shape) or any(own > size for own, size in zip(wide.shape, shape, strict=True)):
        raise ModelError(
            f"scales of the shape {list(scale.shape)} don't fit weights of the shape {list(shape)}"
        )
    return wide


def _block_size(size: int, blocks: int, declared: int | None) -> int:
    """Return how many rows or columns a block has, of which the last one may be smaller.

    Without a declaration it is 128, as DeepSeek's, or a power of two, or a divisor.
    """
    if blocks == 1:
        return size
    average = -(-size // blocks)
    power = 1 << (average - 1).bit_length()
    divisor = average if size % blocks == 0 else None
    for candidate in (declared, _USUAL_BLOCK, power, divisor):
        if candidate and -(-size // candidate) == blocks:
            return candidate
    raise ModelError(f"{blocks} scales don't divide {size} rows or columns into equal blocks")
