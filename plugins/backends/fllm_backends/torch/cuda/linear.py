"""The products of a decoder, by what its weights are kept as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fllm_backends.torch.cuda.matmul import multiply
from fllm_backends.torch.cuda.pointwise import normalize
from fllm_backends.torch.model import Linear, RMSNorm

_FEW_ROWS = 64
"""Up to here the weights' way from memory costs more than widening them."""
_MAX_FP8 = 448.0


class Product(Protocol):
    """[rows, in] to [rows, out], in the dtype of the rows."""

    def __call__(self, x: Tensor, *, norm: RMSNorm | None = None, onto: Tensor | None = None) -> Tensor:
        """Of the norm of the rows, where one is given; added to ``onto`` itself, where that is."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """Weights as they are."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, linear: Linear) -> Plain:
        """The same weights."""
        return cls(linear.weight, linear.bias)

    def __call__(self, x: Tensor, *, norm: RMSNorm | None = None, onto: Tensor | None = None) -> Tensor:
        if len(x) == 1:
            return multiply(x, self.weight, bias=self.bias, norm=norm, onto=onto)
        x = normalize(x, norm) if norm else x
        if onto is None:
            return F.linear(x, self.weight, self.bias)
        onto.addmm_(x, self.weight.t())
        return onto if self.bias is None else onto.add_(self.bias)


@dataclass(frozen=True, slots=True)
class Int8:
    """Weights rounded to int8, with one scale for each output; activations as they are."""

    weight: Tensor
    scale: Tensor
    """[out], float32"""
    bias: Tensor | None

    @classmethod
    def of(cls, linear: Linear) -> Int8:
        """Round to the nearest of 255 steps."""
        scale = _scale(linear.weight, 127.0)
        return cls((linear.weight / scale).round().to(torch.int8), scale[:, 0], linear.bias)

    def __call__(self, x: Tensor, *, norm: RMSNorm | None = None, onto: Tensor | None = None) -> Tensor:
        if len(x) > 1 and norm:
            x, norm = normalize(x, norm), None
        return multiply(x, self.weight, self.scale, self.bias, norm=norm, onto=onto)


@dataclass(frozen=True, slots=True)
class Fp8:
    """Weights in float8 (e4m3), with one scale for each output; those of many rows' activations too."""

    weight: Tensor
    scale: Tensor
    """[out], float32"""
    bias: Tensor | None

    @classmethod
    def of(cls, linear: Linear) -> Fp8:
        """Round to the nearest float8."""
        scale = _scale(linear.weight, _MAX_FP8)
        return cls((linear.weight / scale).to(torch.float8_e4m3fn), scale[:, 0], linear.bias)

    def __call__(self, x: Tensor, *, norm: RMSNorm | None = None, onto: Tensor | None = None) -> Tensor:
        if len(x) > 1 and norm:
            x, norm = normalize(x, norm), None
        if len(x) <= _FEW_ROWS or not self._in_float8():
            return multiply(x, self.weight, self.scale, self.bias, norm=norm, onto=onto)
        product = self._multiply_float8(x)
        return product if onto is None else onto.add_(product)

    def _multiply_float8(self, x: Tensor) -> Tensor:
        scale = _scale(x, _MAX_FP8)
        product = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
            (x / scale).to(torch.float8_e4m3fn),
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale[None],
            out_dtype=torch.bfloat16,
        ).to(x.dtype)
        return product if self.bias is None else product + self.bias

    def _in_float8(self) -> bool:
        """The product of two float8 matrices wants sizes of whole 16 bytes."""
        return all(size % 16 == 0 for size in self.weight.shape)


KINDS: dict[str, Callable[[Linear], Product]] = {"none": Plain.of, "int8": Int8.of, "fp8": Fp8.of}
"""By ``--quantization``."""


def _scale(x: Tensor, largest: float) -> Tensor:
    """What to divide each row by, so that its largest number becomes this: [rows, 1], float32."""
    return x.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / largest
