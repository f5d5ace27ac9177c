"""Read the weights of a GGUF file, as tensors and as matrices that stay in the file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm_backends.checkpoints.gguf.merged_experts import MergedExperts
from fllm_backends.checkpoints.gguf.tensors import TensorRows
from fllm_backends.checkpoints.gguf.weights import GGUFWeights
from fllm_backends.torch.quantized.weight import QuantizedWeight
from fllm_backends.torch.weight_matrix import StackedMatrix, WeightMatrix


class GGUFMatrix:
    """A matrix of a GGUF file (see `WeightMatrix`)."""

    def __init__(self, rows: TensorRows) -> None:
        self._rows = rows

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self._rows.shape

    @property
    def gguf_type(self) -> str:
        """Quantization of the rows."""
        return self._rows.type_name

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows as float32."""
        return torch.from_numpy(self._rows.rows(start, stop))

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of rows."""
        return self._rows.blocks(start, stop)


class _Experts(QuantizedWeight):
    """The experts of a layer of gpt-oss."""

    def __init__(self, experts: MergedExperts) -> None:
        self._experts = experts
        self.shape = experts.shape

    def rows(self, start: int, stop: int) -> Tensor:
        """Return some of the experts as float32."""
        return torch.from_numpy(self._experts.read(start, stop))


class GGUFSource:
    """A `TensorSource` over a GGUF file: norms and biases are read, matrices stay in the file."""

    def __init__(self, weights: GGUFWeights, device: torch.device, dtype: torch.dtype) -> None:
        self._weights = weights
        self._device = device
        self._dtype = dtype

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def weight(self, name: str) -> Tensor | WeightMatrix | QuantizedWeight:
        """Return a weight of any shape; raise `ModelError` if it is missing. Only a vector is read."""
        stored = self._weights.stored(name)
        if isinstance(stored, MergedExperts):
            return _Experts(stored)
        return torch.from_numpy(stored) if isinstance(stored, np.ndarray) else GGUFMatrix(stored)

    def stack(self, names: list[str], *shapes: tuple[int, ...]) -> Tensor:
        """Read and concatenate norms or biases."""
        parts = [self._weights.vector(name, *shape) for name, shape in zip(names, shapes, strict=True)]
        return torch.from_numpy(np.concatenate(parts)).to(self._device, self._dtype)

    def matrix(self, names: list[str], *shapes: tuple[int, int]) -> WeightMatrix:
        """Return the matrices of these names, concatenated along the first dimension."""
        parts = [
            GGUFMatrix(self._weights.matrix(name, *shape)) for name, shape in zip(names, shapes, strict=True)
        ]
        return parts[0] if len(parts) == 1 else StackedMatrix(tuple(parts))
