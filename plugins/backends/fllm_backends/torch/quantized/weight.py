"""The base of weights that are dequantized a few rows at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm_backends.torch.weight_matrix import CHUNK_VALUES


class QuantizedWeight(ABC):
    """A weight of a quantized checkpoint. With two dimensions it is a `WeightMatrix`."""

    shape: Any
    """Shape of the dequantized weight."""

    @property
    def gguf_type(self) -> str | None:
        """Quantization of GGUF that holds the rows without a loss; ``None`` if there is none."""
        return None

    @abstractmethod
    def rows(self, start: int, stop: int) -> Tensor:
        """Return these entries of the first dimension as float32."""

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of these rows in the quantization `gguf_type`."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise `ValueError`, or an error of torch, if the ends of a matrix can't be dequantized.

        This finds tensors whose shapes do not belong together.
        """
        if len(self.shape) == 2:
            count, columns = self.shape
            for start in {0, count - 1}:
                if (found := tuple(self.rows(start, start + 1).shape)) != (1, columns):
                    raise ValueError(f"a row has the shape {list(found)}, and not {[1, columns]}")

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the whole weight, without a float32 copy of the whole."""
        whole = torch.empty(self.shape, dtype=dtype)
        step = max(1, CHUNK_VALUES // max(whole[0].numel(), 1))
        for start in range(0, len(whole), step):
            whole[start : start + step] = self.rows(start, min(start + step, len(whole)))
        return whole
