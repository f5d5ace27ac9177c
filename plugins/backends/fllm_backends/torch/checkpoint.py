"""Read the tensors of a model directory as torch tensors, mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from fllm.errors import ModelError
from fllm_backends.checkpoints.safetensors_files import open_safetensors, tensor_files


class Checkpoint:
    """Tensors of a model directory by name; each is read on request."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Any] = {}
        self._files = tensor_files(directory)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def tensor(self, name: str, *shape: int) -> Tensor:
        """Return a tensor; raise `ModelError` if it is missing, misshapen or not floating-point."""
        tensor = self.read(name)
        where = f"the weight {name!r} in {self._directory / self._files[name]}"
        if tensor.shape != shape:
            raise ModelError(
                f"{where} has the shape {list(tensor.shape)}; config.json requires {list(shape)}"
            )
        if not tensor.is_floating_point():
            raise ModelError(f"{where} is of type {tensor.dtype}; quantized weights can't be read")
        return tensor

    def read(self, name: str) -> Tensor:
        """Return a tensor of any shape and type; raise `ModelError` if it is missing."""
        if name not in self._files:
            raise ModelError(f"the weights in {self._directory} lack {name!r}")
        try:
            tensor: Tensor = self._reader(self._files[name]).get_tensor(name)
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"{self._directory / self._files[name]} can't be read: {error}") from error
        return tensor

    def _reader(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = open_safetensors(self._directory / file, "pt")
        return self._open[file]
