"""Choose the decoder of a CUDA device. Importing this module does not need Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fllm.errors import ConfigError
from fllm_backends.checkpoints.architecture import Architecture, Feature
from fllm_backends.torch.hardware import supports_triton
from fllm_backends.torch.model import CausalLM, Decoder, Weights

if TYPE_CHECKING:
    from fllm_backends.torch.cuda.paged_attention import TritonAttention

FEATURES: frozenset[Feature] = frozenset()
"""Those of `Architecture.features` that the kernels support."""


def cuda_quantization(a: Architecture, requested: str | None, served: str | None) -> str | None:
    """Return ``served``, or None if the kernels lack a feature: then the weights are not quantized.

    Raise `ConfigError` if this quantization is ``requested``.
    """
    missing = a.features - FEATURES
    if not missing or served in (None, "none"):
        return served
    if requested == served:
        raise ConfigError(
            f"--quantization {served}: on a CUDA device, the kernels lack what {a.name} needs "
            f"({', '.join(sorted(missing))}); leave it out"
        )
    return None


def cuda_decoder(
    architecture: Architecture, weights: Weights, *, quantization: str, max_rows: int, max_positions: int
) -> Decoder:
    """Return a decoder on our kernels, or on torch operations if Triton or a feature is not supported."""
    if not (architecture.features <= FEATURES and supports_triton(weights.norm.weight.device)):
        return CausalLM(architecture, weights)
    from fllm_backends.torch.cuda.decoder import CudaLM

    return CudaLM(
        architecture, weights, quantization=quantization, max_rows=max_rows, max_positions=max_positions
    )


def cuda_attention(device: torch.device, dtype: torch.dtype) -> TritonAttention | None:
    """Return attention on our kernels for a model of transformers, or None if Triton is not supported."""
    if not supports_triton(device):
        return None
    from fllm_backends.torch.cuda.paged_attention import TritonAttention

    return TritonAttention(device, dtype)
