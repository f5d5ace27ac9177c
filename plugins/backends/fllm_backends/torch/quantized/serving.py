"""Decide how the weights of a quantized checkpoint are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fllm.errors import ConfigError
from fllm_backends.checkpoints.quantized.config import QuantizationConfig
from fllm_backends.torch.hardware import check_quantization

if TYPE_CHECKING:
    import torch

PACKED = "packed"
_PACKED_4_BITS, _PACKED_8_BITS = 18 / 32, 34 / 32
"""Bytes of a value in blocks of 32 with a scale in float16."""
SERVED = ("none", "int8", "fp8")
"""Quantizations in which weights are served."""


def served_quantization(
    requested: str | None, checkpoint: QuantizationConfig | None, dtype: str, device: torch.device
) -> str | None:
    """Return the quantization to serve with; ``None`` leaves it to the decoder.

    ``requested`` is ``--quantization``: one of `SERVED`, or what the checkpoint is quantized with, as vLLM
    accepts it. ``none`` widens the weights. By default CUDA devices keep float8 and int8. Raise `ConfigError`
    if the checkpoint is quantized otherwise, or the device does not support the quantization.
    """
    is_float8 = checkpoint is not None and checkpoint.values == "float8"
    if requested not in (None, *SERVED):
        if checkpoint is None or checkpoint.method != requested:
            actual = f"quantized with {checkpoint.method}" if checkpoint else "not quantized"
            raise ConfigError(
                f"--quantization {requested}: the checkpoint is {actual}; "
                f"leave the option out, or choose {', '.join(SERVED)}"
            )
        requested = None
    elif requested == "fp8" and is_float8 and device.type == "cpu":
        requested = None  # it names the checkpoint's method
    if requested is None and checkpoint and device.type == "cuda":
        return _kept_on_cuda(checkpoint, dtype, device)
    check_quantization(requested, dtype, device)
    return requested


def bytes_of_weight(checkpoint: QuantizationConfig | None, served: str | None, dtype: str) -> float:
    """Return the memory of one weight as it is served.

    ``served`` is `PACKED` for the formats of a CPU, which hold grids of 4 bits as they are, else a
    quantization. Without one a weight has the size of ``dtype``.
    """
    if served == PACKED:
        return _PACKED_4_BITS if checkpoint and checkpoint.has_grids else _PACKED_8_BITS
    if served in ("int8", "fp8"):
        return 1
    return 4 if dtype == "float32" else 2


def describe_blocks(blocks: Mapping[str, int]) -> str:
    """Return how many matrices of a quantized checkpoint have kept their bits on a CPU, for the log.

    The keys are types of GGUF. Those of ``none`` were rounded, such as weights in GPTQ's activation order.
    """
    kept = [f"{count} kept as {kind}" for kind, count in sorted(blocks.items()) if kind != "none"]
    return ", ".join([*kept, *([f"{blocks['none']} rounded to 8 bits"] if "none" in blocks else [])])


def _kept_on_cuda(checkpoint: QuantizationConfig, dtype: str, device: torch.device) -> str:
    """Return the quantization of the checkpoint if the device has kernels for it."""
    kept = {"float8": "fp8", "int8": "int8"}.get(checkpoint.values or "", "none")
    if checkpoint.block_shape:
        return "none"  # the kernels have one scale for each output
    try:
        check_quantization(kept, dtype, device)
    except ConfigError:
        return "none"
    return kept
