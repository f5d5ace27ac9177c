"""Linear layers with weights of each quantization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_backends.torch.cuda.matmul import matmul
from fllm_backends.torch.cuda.pointwise import rms_norm
from fllm_backends.torch.model import Linear, RMSNorm
from fllm_backends.torch.quantized.scaled import row_scaled
from fllm_backends.torch.weight_matrix import materialize

_MAX_WEIGHT_ONLY_ROWS = 64
"""Up to this number of rows, loading the weights costs more than widening them."""
_FP8_MAX = 448.0


class LinearOp(Protocol):
    """Maps [rows, in] to [rows, out], in the dtype of the rows."""

    def __call__(self, x: Tensor, *, norm: RMSNorm | None = None, add_to: Tensor | None = None) -> Tensor:
        """Apply to ``x``, or to its norm if ``norm`` is given.

        Add the result to ``add_to`` in place if it is given.
        """
        ...


@dataclass(frozen=True, slots=True)
class UnquantizedLinear:
    """Weights in their own dtype."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def from_linear(cls, linear: Linear) -> UnquantizedLinear:
        """Keep the weights."""
        return cls(linear.tensor, linear.bias)

    def __call__(self, x: Tensor, *, norm: RMSNorm | None = None, add_to: Tensor | None = None) -> Tensor:
        if len(x) == 1:
            return matmul(x, self.weight, bias=self.bias, norm=norm, add_to=add_to)
        x = rms_norm(x, norm) if norm else x
        if add_to is None:
            return F.linear(x, self.weight, self.bias)
        add_to.addmm_(x, self.weight.t())
        return add_to if self.bias is None else add_to.add_(self.bias)


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """Weights quantized to int8 with a scale for each output; activations in their own dtype."""

    weight: Tensor
    scale: Tensor
    """[out], float32"""
    bias: Tensor | None

    @classmethod
    def from_linear(cls, linear: Linear) -> Int8Linear:
        """Quantize to the nearest of 255 values."""
        scale = _scale(linear.tensor, 127.0)
        return cls((linear.tensor / scale).round().to(torch.int8), scale[:, 0], linear.bias)

    def __call__(self, x: Tensor, *, norm: RMSNorm | None = None, add_to: Tensor | None = None) -> Tensor:
        if len(x) > 1 and norm:
            x, norm = rms_norm(x, norm), None
        return matmul(x, self.weight, self.scale, self.bias, norm=norm, add_to=add_to)


@dataclass(frozen=True, slots=True)
class Fp8Linear:
    """Weights in float8 (e4m3) with a scale for each output.

    The activations of many rows are quantized, too.
    """

    weight: Tensor
    scale: Tensor
    """[out], float32"""
    bias: Tensor | None

    @classmethod
    def from_linear(cls, linear: Linear) -> Fp8Linear:
        """Quantize to the nearest float8."""
        scale = _scale(linear.tensor, _FP8_MAX)
        return cls((linear.tensor / scale).to(torch.float8_e4m3fn), scale[:, 0], linear.bias)

    def __call__(self, x: Tensor, *, norm: RMSNorm | None = None, add_to: Tensor | None = None) -> Tensor:
        if len(x) > 1 and norm:
            x, norm = rms_norm(x, norm), None
        if len(x) <= _MAX_WEIGHT_ONLY_ROWS or not self._has_aligned_shape():
            return matmul(x, self.weight, self.scale, self.bias, norm=norm, add_to=add_to)
        product = self._multiply_float8(x)
        return product if add_to is None else add_to.add_(product)

    def _multiply_float8(self, x: Tensor) -> Tensor:
        scale = _scale(x, _FP8_MAX)
        product = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
            (x / scale).to(torch.float8_e4m3fn),
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale[None],
            out_dtype=torch.bfloat16,
        ).to(x.dtype)
        return product if self.bias is None else product + self.bias

    def _has_aligned_shape(self) -> bool:
        """Return whether the sizes are multiples of 16 bytes, which a product of float8 matrices requires."""
        return all(size % 16 == 0 for size in self.weight.shape)


LINEAR_KINDS: dict[str, Callable[[Linear], LinearOp]] = {
    "none": UnquantizedLinear.from_linear,
    "int8": Int8Linear.from_linear,
    "fp8": Fp8Linear.from_linear,
}
"""Linear layers by ``--quantization``."""

_STORED: dict[str, tuple[type[Int8Linear | Fp8Linear], torch.dtype]] = {
    "int8": (Int8Linear, torch.int8),
    "fp8": (Fp8Linear, torch.float8_e4m3fn),
}
"""Linear layers that take the values of a quantized checkpoint, and the type of these values."""


def load_linear(linear: Linear, quantization: str, like: Tensor) -> LinearOp:
    """Return a linear layer of `LINEAR_KINDS` on the device of ``like``, in its dtype.

    Values that the checkpoint stores in the type of the layer, with a scale for each output, are not rounded
    again.
    """
    if quantization in _STORED:
        kind, dtype = _STORED[quantization]
        if stored := row_scaled(linear.weight, dtype):
            values, scale = (part.to(like.device) for part in stored)
            return kind(values, scale, linear.bias)
    return LINEAR_KINDS[quantization](materialize(linear, like))


def _scale(x: Tensor, largest: float) -> Tensor:
    """Return the divisor that scales the largest magnitude of each row to ``largest``: [rows, 1], float32."""
    return x.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / largest
