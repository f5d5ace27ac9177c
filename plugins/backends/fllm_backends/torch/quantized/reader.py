"""Read a weight of any stored format from its tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from fllm_backends.checkpoints.quantized.config import QuantizationConfig
from fllm_backends.checkpoints.quantized.stored_weights import StoredWeight
from fllm_backends.torch.quantized.codebooks import Bitsandbytes4Weight, Float4Weight, TransposedExperts
from fllm_backends.torch.quantized.grids import AwqWeight, GptqWeight, PackedWeight
from fllm_backends.torch.quantized.scaled import ScaledWeight

_BITSANDBYTES_MAX = 127.0


class QuantizedWeight(Protocol):
    """A weight that is dequantized a few entries of the first dimension at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dequantized weight."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Return these entries of the first dimension as float32."""
        ...


def quantized_weight(
    stored: StoredWeight, read: Callable[[str], Tensor], config: QuantizationConfig | None
) -> QuantizedWeight:
    """Return a weight that is not plain. ``read`` returns a tensor of the checkpoint, mapped from its file.

    Raise `ModelError` if the tensors do not belong together.
    """
    parts = {role: read(name) for role, name in stored.parts.items()}
    match stored.format:
        case "gptq":
            return GptqWeight(parts, config.zero_offset if config else 1)
        case "awq":
            return AwqWeight(parts)
        case "packed":
            return PackedWeight(parts)
        case "mxfp4" | "nvfp4":
            weight = Float4Weight(parts)
            return TransposedExperts(weight) if _is_gpt_oss(stored) else weight
        case "bitsandbytes_4bit":
            return Bitsandbytes4Weight(parts)
        case "bitsandbytes_8bit":
            return ScaledWeight(parts | {"scale": parts["scale"].float() / _BITSANDBYTES_MAX}, None)
        case _:
            return ScaledWeight(parts, config.block_shape if config else None)


def dequantize(weight: QuantizedWeight, dtype: torch.dtype) -> Tensor:
    """Return the whole weight, without a float32 copy of the whole."""
    whole = torch.empty(weight.shape, dtype=dtype)
    row = max(whole[0].numel(), 1)
    step = max(1, _CHUNK // row)
    for start in range(0, len(whole), step):
        stop = min(start + step, len(whole))
        whole[start:stop] = weight.rows(start, stop)
    return whole


_CHUNK = 2**22
"""Weights that are dequantized at once."""


def _is_gpt_oss(stored: StoredWeight) -> bool:
    return stored.parts["values"].endswith("_blocks")
