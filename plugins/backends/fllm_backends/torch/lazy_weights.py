"""The weights of a checkpoint as a state dict whose tensors are read when they are asked for."""

from __future__ import annotations

from types import EllipsisType

import torch
from torch import Tensor

from fllm_backends.torch.checkpoint import Checkpoint


class LazyWeight:
    """A weight that ``[...]`` reads, dequantized if necessary, as a slice of a safetensors file does."""

    def __init__(self, checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._name = name
        self._dtype = dtype

    @property
    def shape(self) -> torch.Size:
        """Shape of the dequantized weight."""
        return torch.Size(self._checkpoint.weight(self._name).shape)

    def __getitem__(self, everything: EllipsisType) -> Tensor:
        """Return the weight. One that is not quantized keeps its dtype."""
        return self._checkpoint.read(self._name, self._dtype)


def lazy_weights(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, LazyWeight]:
    """Return all weights by name, for ``from_pretrained(None, state_dict=...)`` of transformers.

    Its renames and merges of experts apply to the names, which are those of a checkpoint that is not
    quantized. Quantized weights have this ``dtype``.
    """
    return {name: LazyWeight(checkpoint, name, dtype) for name in checkpoint}
