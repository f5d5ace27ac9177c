"""Weights whose 4 bits select one of 16 numbers: MXFP4, NVFP4, and bitsandbytes' NF4 and FP4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from numpy.typing import NDArray
from torch import Tensor

from fllm.errors import ModelError
from fllm_backends.torch.quantized.bits import unpack_nibbles
from fllm_backends.torch.quantized.gguf_blocks import BLOCK, q8_blocks
from fllm_backends.torch.quantized.weight import QuantizedWeight

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of the 4-bit float of OCP Microscaling (MX 1.0, table 5). The highest bit is the sign."""
_CODEBOOK = (*_MAGNITUDES, *(-value for value in _MAGNITUDES))


class Float4Weight(QuantizedWeight):
    """Floats of 4 bits, two per byte, with a scale for each group of a row: [..., out, in]."""

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        self._values, self._scale = parts["values"], parts["scale"]
        if self._values.ndim > self._scale.ndim:  # gpt-oss: [experts, out, groups, bytes of a group]
            self._values = self._values.flatten(-2)
        self.shape: tuple[int, ...] = (*self._values.shape[:-1], 2 * self._values.shape[-1])
        if self._scale.shape[:-1] != self._values.shape[:-1] or self.shape[-1] % self._scale.shape[-1]:
            raise ModelError(
                f"scales of the shape {list(self._scale.shape)} don't fit 4-bit floats of the shape "
                f"{list(self.shape)}"
            )
        self._factor = parts["factor"].float().item() if "factor" in parts else 1.0
        if "divisor" in parts:
            self._factor = 1.0 / parts["divisor"].float().item()

    def split(self) -> list[Float4Weight]:
        """Return the entries of the first dimension."""
        factor = {"factor": torch.tensor(self._factor)}
        return [
            Float4Weight({"values": values, "scale": scale} | factor)
            for values, scale in zip(self._values, self._scale, strict=True)
        ]

    @property
    def gguf_type(self) -> str | None:
        """Quantization of GGUF that holds the rows: the halves of MXFP4 are whole numbers of Q8_0."""
        is_mxfp4 = self._scale.dtype != torch.float8_e4m3fn
        return "Q8_0" if is_mxfp4 and self.shape[-1] == BLOCK * self._scale.shape[-1] else None

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of these rows as Q8_0."""
        doubled = 2 * torch.tensor(_CODEBOOK)[unpack_nibbles(self._values[start:stop])]
        return q8_blocks(doubled, self._scales(start, stop) / 2)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return these entries of the first dimension as float32."""
        values = torch.tensor(_CODEBOOK)[unpack_nibbles(self._values[start:stop])]
        scales = self._scales(start, stop)
        return values * scales.repeat_interleave(self.shape[-1] // scales.shape[-1], -1)

    def _scales(self, start: int, stop: int) -> Tensor:
        scale = self._scale[start:stop]
        if scale.dtype == torch.uint8:
            scale = scale.view(torch.float8_e8m0fnu)  # powers of two
        return scale.float() * self._factor


class TransposedExperts(QuantizedWeight):
    """Experts that gpt-oss stores as [experts, out, in], and its class takes as [experts, in, out]."""

    def __init__(self, stored: Float4Weight) -> None:
        self._stored = stored
        experts, outputs, inputs = stored.shape
        self.shape = experts, inputs, outputs

    def rows(self, start: int, stop: int) -> Tensor:
        """Return these experts as float32: [stop - start, in, out]."""
        return self._stored.rows(start, stop).transpose(1, 2).contiguous()

    def matrices(self) -> list[Float4Weight]:
        """Return the experts as they are stored, [out, in] each."""
        return self._stored.split()


class _State(Struct):
    """What bitsandbytes stores with a weight, as JSON."""

    shape: Annotated[list[Annotated[int, Meta(ge=1, le=2**24)]], Meta(min_length=1, max_length=3)]
    blocksize: Annotated[int, Meta(ge=2, le=2**20)]
    nested_blocksize: Annotated[int, Meta(ge=1, le=2**20)] = 256
    nested_offset: float = 0.0


class Bitsandbytes4Weight(QuantizedWeight):
    """Bitsandbytes' 4 bits: a codebook, and the largest magnitude of each block of the flat weight."""

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        try:
            self._state = msgspec.json.decode(bytes(parts["state"].tolist()), type=_State)
        except (ValueError, TypeError) as error:
            raise ModelError(f"bitsandbytes' quant_state is invalid: {error}") from error
        self.shape = tuple(self._state.shape)
        self._parts = parts
        self._row = math.prod(self.shape[1:])
        blocks = -(-math.prod(self.shape) // self._state.blocksize)
        if 2 * parts["values"].numel() < math.prod(self.shape) or parts["absmax"].numel() < blocks:
            raise ModelError(f"bitsandbytes' weight is smaller than its shape {list(self.shape)}")
        if parts["codebook"].numel() != 16:
            raise ModelError("bitsandbytes' quant_map must have 16 numbers")

    def rows(self, start: int, stop: int) -> Tensor:
        """Return these entries of the first dimension as float32."""
        first, last = start * self._row, stop * self._row
        bytes_ = self._parts["values"].flatten()[first // 2 : -(-last // 2)]
        codes = torch.stack([bytes_ >> 4, bytes_ & 15], -1).flatten()[first % 2 :][: last - first]
        blocks = torch.arange(first, last) // self._state.blocksize
        values = self._parts["codebook"].float()[codes.long()] * self._magnitudes[blocks]
        return values.view(stop - start, *self.shape[1:])

    @cached_property
    def _magnitudes(self) -> Tensor:
        """Largest magnitude of each block. It may be quantized itself ("double quantization")."""
        stored = self._parts["absmax"].flatten()
        if "nested_absmax" not in self._parts:
            return stored.float()
        scales = self._parts["nested_absmax"].float().flatten()
        block = torch.arange(len(stored)) // self._state.nested_blocksize
        return (
            self._parts["nested_codebook"].float()[stored.long()] * scales[block] + self._state.nested_offset
        )
