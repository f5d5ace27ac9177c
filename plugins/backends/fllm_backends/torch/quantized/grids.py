"""Weights on grids: integers of a few bits, with a scale and a zero point for each group of a row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm.errors import ModelError
from fllm_backends.torch.quantized.bits import unpack_whole_words, unpack_words
from fllm_backends.torch.quantized.gguf_blocks import BLOCK, q4_blocks, q8_blocks
from fllm_backends.torch.quantized.weight import QuantizedWeight

_AWQ_PACK = 8
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Place of each of eight neighbouring integers in a word, counted from the lowest bits."""


class GridWeight(QuantizedWeight):
    """``(values - zero_points) * scales``: [out, in]."""

    shape: tuple[int, int]
    bits: int
    group_of_column: Tensor | None = None
    """Group of each column: [in]. ``None``: groups are neighbouring columns of equal number."""

    def values(self, start: int, stop: int) -> Tensor:
        """Return the unsigned integers of these rows: [stop - start, in]."""
        raise NotImplementedError

    def scales(self, start: int, stop: int) -> Tensor:
        """Return the scales of these rows as float32: [stop - start, groups]."""
        raise NotImplementedError

    def zero_points(self, start: int, stop: int) -> Tensor | int:
        """Return the zero points of these rows: [stop - start, groups], or one for all."""
        raise NotImplementedError

    @property
    def gguf_type(self) -> str | None:
        """Quantization of GGUF that holds the rows, if groups are multiples of 32 neighbouring columns."""
        return self._gguf_type

    @cached_property
    def _gguf_type(self) -> str | None:
        groups = self.scales(0, 1).shape[1]
        if self.group_of_column is not None or self.shape[1] % (groups * BLOCK):
            return None
        symmetric = self._is_symmetric()
        if self.bits == 4:
            return "Q4_0" if symmetric else "Q4_1"
        return "Q8_0" if self.bits == 8 and symmetric else None

    def _is_symmetric(self) -> bool:
        zero_points = self.zero_points(0, self.shape[0])
        return isinstance(zero_points, int) or bool((zero_points == 1 << (self.bits - 1)).all())

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of these rows in the quantization `gguf_type`."""
        values, scales = self.values(start, stop), self._of_blocks(self.scales(start, stop))
        if self.gguf_type == "Q8_0":
            return q8_blocks(values - 128, scales)
        zero_points = self.zero_points(start, stop)
        if self.gguf_type == "Q4_0" or isinstance(zero_points, int):
            return q4_blocks(values, scales, None)
        return q4_blocks(values, scales, -scales * self._of_blocks(zero_points))

    def _of_blocks(self, groups: Tensor) -> Tensor:
        """Return what applies to each block of 32 columns of [rows, groups]: [rows, in / 32]."""
        return groups.repeat_interleave(self.shape[1] // BLOCK // groups.shape[1], 1)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return these rows as float32: [stop - start, in]."""
        zero_points = self.zero_points(start, stop)
        if isinstance(zero_points, Tensor):
            zero_points = self._spread(zero_points)
        return (self.values(start, stop) - zero_points) * self._spread(self.scales(start, stop))

    def _spread(self, groups: Tensor) -> Tensor:
        """Return what applies to each column of [rows, groups]: [rows, in]."""
        if self.group_of_column is not None:
            return groups[:, self.group_of_column]
        return groups.repeat_interleave(-(-self.shape[1] // groups.shape[1]), 1)[:, : self.shape[1]]


class GptqWeight(GridWeight):
    """GPTQ's layout: words hold neighbouring inputs of one output, [in * bits / 32, out]."""

    def __init__(self, parts: Mapping[str, Tensor], zero_offset: int) -> None:
        self._words, self._scales, self._zero_words = parts["values"], parts["scale"], parts["zero_point"]
        self._zero_offset = zero_offset
        groups, outputs = self._scales.shape
        self.bits, rest = divmod(32 * self._zero_words.shape[1], outputs)
        inputs = 32 * len(self._words) // max(self.bits, 1)
        is_consistent = len(self._zero_words) == groups and self._words.shape[1] == outputs
        if rest or self.bits not in (2, 3, 4, 8) or not is_consistent:
            raise ModelError(
                f"GPTQ's qweight {list(self._words.shape)}, qzeros {list(self._zero_words.shape)} and scales "
                f"{list(self._scales.shape)} don't belong together"
            )
        self.shape = outputs, inputs
        self.group_of_column = _group_of_column(parts.get("groups"), inputs, groups)

    def values(self, start: int, stop: int) -> Tensor:
        """Return the unsigned integers of these rows: [stop - start, in]."""
        return unpack_words(self._words[:, start:stop].t().contiguous(), self.bits, self.shape[1])

    def scales(self, start: int, stop: int) -> Tensor:
        """Return the scales of these rows as float32: [stop - start, groups]."""
        return self._scales[:, start:stop].t().float()

    def zero_points(self, start: int, stop: int) -> Tensor:
        """Return the zero points of these rows: [stop - start, groups]. A stored maximum wraps around."""
        return self._zero_points[:, start:stop].t()

    @cached_property
    def _zero_points(self) -> Tensor:
        stored = unpack_words(self._zero_words, self.bits, self.shape[0])
        zero_points: Tensor = (stored + self._zero_offset) & (2**self.bits - 1)
        return zero_points


class AwqWeight(GridWeight):
    """AWQ's layout for GEMM: words hold eight neighbouring outputs of one input, [in, out / 8]."""

    bits = 4

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        self._words, self._scales, self._zero_words = parts["values"], parts["scale"], parts["zero_point"]
        self.shape = self._scales.shape[1], len(self._words)
        if (self._words.shape[1] * _AWQ_PACK, *self._zero_words.shape) != (
            self.shape[0],
            len(self._scales),
            self._words.shape[1],
        ):
            raise ModelError(
                f"AWQ's qweight {list(self._words.shape)}, qzeros {list(self._zero_words.shape)} and scales "
                f"{list(self._scales.shape)} don't belong together"
            )

    def values(self, start: int, stop: int) -> Tensor:
        """Return the unsigned integers of these rows: [stop - start, in]."""
        return _unpack_awq(self._words, start, stop).t()

    def scales(self, start: int, stop: int) -> Tensor:
        """Return the scales of these rows as float32: [stop - start, groups]."""
        return self._scales[:, start:stop].t().float()

    def zero_points(self, start: int, stop: int) -> Tensor:
        """Return the zero points of these rows: [stop - start, groups]."""
        return _unpack_awq(self._zero_words, start, stop).t()


class PackedWeight(GridWeight):
    """The layout of compressed-tensors: words hold neighbouring inputs, offset to be unsigned."""

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        self._words, self._scales = parts["values"], parts["scale"]
        self._zero_parts = parts.get("zero_point")
        outputs, inputs = parts["shape"].tolist() if "shape" in parts else (len(self._words), 0)
        self.bits = _packed_bits(self._words.shape[1], inputs)
        self.shape = outputs, inputs or self._words.shape[1] * (32 // self.bits)
        if self._scales.ndim == 1:
            self._scales = self._scales[:, None] if len(self._scales) == outputs else self._scales[None]
        if len(self._words) != outputs or len(self._scales) not in (1, outputs):
            raise ModelError(
                f"weight_packed {list(self._words.shape)}, weight_scale {list(self._scales.shape)} and "
                f"weight_shape {[outputs, inputs]} don't belong together"
            )
        self._scales = self._scales.expand(outputs, -1)
        self.group_of_column = _group_of_column(parts.get("groups"), self.shape[1], self._scales.shape[1])

    def values(self, start: int, stop: int) -> Tensor:
        """Return the unsigned integers of these rows: [stop - start, in]."""
        return unpack_whole_words(self._words[start:stop], self.bits, self.shape[1])

    def scales(self, start: int, stop: int) -> Tensor:
        """Return the scales of these rows as float32: [stop - start, groups]."""
        return self._scales[start:stop].float()

    def zero_points(self, start: int, stop: int) -> Tensor | int:
        """Return the zero points of these rows: [stop - start, groups], or the middle of the grid."""
        return self._middle if self._zero_points is None else self._zero_points[start:stop]

    @property
    def _middle(self) -> int:
        return 1 << (self.bits - 1)

    @cached_property
    def _zero_points(self) -> Tensor | None:
        """Zero points of all rows, [out, groups]. They are packed along the outputs, or signed bytes."""
        stored = self._zero_parts
        if stored is None:
            return None
        if stored.dtype != torch.int32:
            return (stored.reshape(len(stored), -1).int() + self._middle).expand(self._scales.shape)
        unpacked = unpack_whole_words(stored.t(), self.bits, self.shape[0]).t()
        if unpacked.shape != self._scales.shape:
            raise ModelError(f"weight_zero_point {list(stored.shape)} does not fit the weight_scale")
        return unpacked


def _unpack_awq(words: Tensor, start: int, stop: int) -> Tensor:
    """Return columns start ... stop of the matrix that the words hold: [rows, stop - start] int32."""
    first = start // _AWQ_PACK
    part = words[:, first : -(-stop // _AWQ_PACK), None]
    shifts = torch.tensor(_AWQ_ORDER, dtype=torch.int32) * 4
    values = ((part >> shifts) & 15).flatten(1)
    return values[:, start - first * _AWQ_PACK : stop - first * _AWQ_PACK]


def _group_of_column(groups: Tensor | None, columns: int, count: int) -> Tensor | None:
    """Return the group of each column; ``None`` if groups are neighbouring columns. Check the numbers."""
    if groups is None or bool((groups < 0).all()):
        return None
    size = -(-columns // count)
    if len(groups) != columns or int(groups.min()) < 0 or int(groups.max()) >= count:
        raise ModelError(f"the g_idx of {columns} columns in {count} groups is invalid")
    plain = bool((groups == torch.arange(columns, dtype=groups.dtype) // size).all())
    return None if plain else groups.long()


def _packed_bits(words: int, columns: int) -> int:
    """Return the bits of each of ``columns`` integers in ``words`` words; 4 if the columns are not known."""
    if not columns:
        return 4
    for bits in (4, 8, 2, 3, 5, 6, 7):
        if -(-columns // (32 // bits)) == words:
            return bits
    raise ModelError(f"{words} words of weight_packed can't hold the {columns} columns of weight_shape")
