"""A weight matrix that stays in its file until it is used."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class WeightMatrix(Protocol):
    """Weights [out, in] that are read, and dequantized if necessary, a few rows at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows (outputs) and columns (inputs)."""
        ...

    @property
    def gguf_type(self) -> str | None:
        """Quantization of the rows as GGUF names it, such as ``Q4_K``; ``None`` if they have another form."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Return these rows as float32: [stop - start, in]."""
        ...

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of these rows in their GGUF quantization: [stop - start, bytes of a row]."""
        ...
