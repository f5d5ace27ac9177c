"""Check that a model fits into memory as it will be served, before its weights are downloaded or read."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.checkpoints.quantized.config import QuantizationConfig
from fllm_backends.torch.attention import uniform_shapes
from fllm_backends.torch.hardware import MIN_CACHE_TOKENS, check_fits
from fllm_backends.torch.quantized.serving import PACKED, bytes_of_weight

if TYPE_CHECKING:
    from fllm_backends.torch.transformers_lm.class_check import ClassSize


class WeightForm(NamedTuple):
    """How the weights are stored, and how they are served."""

    packed: bool
    """Whether they are packed for the kernels of a CPU."""
    quantization: str | None
    """How they are served if they are not packed."""
    dtype: str
    checkpoint: QuantizationConfig | None
    """How the files are quantized."""
    is_gguf: bool
    gguf: Path | None
    """The GGUF file, once it is known."""


def check_architecture(
    architecture: Architecture, form: WeightForm, device: torch.device, ranks: int
) -> None:
    """Raise `ConfigError` if a rank's weights of a native decoder, and a small KV cache, do not fit."""
    name = PACKED if form.packed else form.quantization
    weights = architecture.parameters * bytes_of_weight(form.checkpoint, name, form.dtype)
    if form.packed and form.gguf:
        weights = packed_bytes(form.gguf)
    elif form.packed and form.is_gguf:
        return  # checked once the types of the tensors are known
    cache = 2 * MIN_CACHE_TOKENS * sum(shape.elements for shape in uniform_shapes(architecture))
    described = form.dtype if name in (None, "none") else name
    check_fits(int(weights / ranks), cache // ranks, described, device)


def check_class_size(size: ClassSize, form: WeightForm, device: torch.device, ranks: int) -> None:
    """Raise `ConfigError` if a rank's weights of a class of transformers do not fit."""
    plain = bytes_of_weight(None, None, form.dtype)
    value = bytes_of_weight(form.checkpoint, PACKED, form.dtype) if form.packed else plain
    if form.packed and form.gguf:
        value = packed_bytes(form.gguf) / count_values(form.gguf)
    described = f"{PACKED}, embeddings in {form.dtype}" if form.packed else form.dtype
    weights = size.packable * value + size.others * plain
    if not form.packed and form.quantization not in (None, "none"):
        described = f"linear layers in {form.quantization}, others in {form.dtype}"
        weights -= size.linear * (plain - bytes_of_weight(None, form.quantization, form.dtype))
    check_fits(int(weights / ranks), 0, described, device)


def count_values(file: Path) -> int:
    """Return the number of values in the tensors of a GGUF file, of all its parts."""
    from fllm_backends.checkpoints.gguf.metadata import Metadata

    return sum(prod(tensor.shape) for tensor in Metadata(file).tensors.values())


def packed_bytes(file: Path) -> float:
    """Return the memory of the weights of a GGUF file, of all its parts, in the formats of a CPU."""
    from fllm_backends.checkpoints.gguf.metadata import Metadata
    from fllm_backends.torch.fused.gguf_blocks import packed_bits

    tensors = Metadata(file).tensors.values()
    return sum(prod(tensor.shape) * packed_bits(tensor.type.name) / 8 for tensor in tensors)
