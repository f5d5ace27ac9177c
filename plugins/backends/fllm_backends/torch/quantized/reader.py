"""Read a weight of any stored format from its tensors."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fllm_backends.checkpoints.quantized.config import QuantizationConfig
from fllm_backends.checkpoints.quantized.stored_weights import StoredWeight
from fllm_backends.torch.quantized.codebooks import Bitsandbytes4Weight, Float4Weight, TransposedExperts
from fllm_backends.torch.quantized.grids import AwqWeight, GptqWeight, PackedWeight
from fllm_backends.torch.quantized.scaled import ScaledWeight
from fllm_backends.torch.quantized.weight import QuantizedWeight

_BITSANDBYTES_MAX = 127.0


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


def _is_gpt_oss(stored: StoredWeight) -> bool:
    return stored.parts["values"].endswith("_blocks")
