"""Which decoder a cuda device gets. Importing this needs no Triton."""

from __future__ import annotations

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.torch.hardware import has_kernels
from fllm_backends.torch.model import CausalLM, Decoder, Weights


def cuda_decoder(
    architecture: Architecture, weights: Weights, *, quantization: str, max_rows: int, max_positions: int
) -> Decoder:
    """On our own kernels, or on torch's operations where the device or the installation has no Triton."""
    if not has_kernels(weights.head.device):
        return CausalLM(architecture, weights)
    from fllm_backends.torch.cuda.decoder import CudaLM

    return CudaLM(
        architecture, weights, quantization=quantization, max_rows=max_rows, max_positions=max_positions
    )
