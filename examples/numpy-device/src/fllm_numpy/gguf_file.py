"""A GGUF file: its keys, and its tensors as float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from fllm import ModelError

Array = NDArray[np.float32]


class GgufFile:
    """An open file; ``{arch}`` in a key stands for the file's architecture."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise ModelError(f"{path} can't be read as GGUF: {error}") from error
        self.architecture = str(self.get("general.architecture", ""))
        self._unread = {tensor.name: tensor for tensor in self._reader.tensors}

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def of_model(self, key: str, default: Any = None) -> Any:
        """The value of a key of the architecture; raises `ModelError` where it has no default either."""
        value = self.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise ModelError(f"the GGUF file lacks {self.architecture}.{key}")
        return value

    def take(self, name: str) -> Array:
        """A tensor, dequantized; raises `ModelError` if it is not there, or was taken already."""
        try:
            tensor = self._unread.pop(name)
            return np.ascontiguousarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        except (KeyError, NotImplementedError) as error:
            raise ModelError(f"the tensor {name!r} can't be read from the GGUF file: {error}") from error

    def has(self, name: str) -> bool:
        """Whether the tensor is there to be taken."""
        return name in self._unread

    def check_all_taken(self) -> None:
        """Raise `ModelError` for tensors that nobody wanted: the model is not what it was read as."""
        if self._unread:
            names = ", ".join(sorted(self._unread)[:3])
            raise ModelError(f"the GGUF file has tensors that a plain Llama has not, such as {names}")
