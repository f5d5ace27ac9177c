"""Choose the decoder of a CUDA device. Importing this module does not need Triton."""

from __future__ import annotations

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.hardware import supports_triton
from fllm_backends.torch.model import CausalLM, Decoder, Weights


def cuda_decoder(
    architecture: Architecture, weights: Weights, *, quantization: str, max_rows: int, max_positions: int
) -> Decoder:
    """Return a decoder on our kernels, or on torch operations if Triton or a feature is not supported."""
    if not supports_triton(weights.norm.weight.device):
        return CausalLM(architecture, weights)
    from fllm_backends.torch.cuda.decoder import FEATURES, CudaLM

    if not architecture.features <= FEATURES:
        return CausalLM(architecture, weights)
    return CudaLM(
        architecture, weights, quantization=quantization, max_rows=max_rows, max_positions=max_positions
    )
