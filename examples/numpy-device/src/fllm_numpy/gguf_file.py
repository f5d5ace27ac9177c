"""Read the keys of a GGUF file, and its tensors as float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from fllm import ModelError

Array = NDArray[np.float32]


class GgufFile:
    """An open GGUF file, whose tensors are each taken once."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise ModelError(f"{path} can't be read as GGUF: {error}") from error
        self.architecture = str(self.get("general.architecture", ""))
        self._unread = {tensor.name: tensor for tensor in self._reader.tensors}

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or the default."""
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def of_model(self, key: str, default: Any = None) -> Any:
        """Return the value of the architecture's key, or the default. Raise `ModelError` without both."""
        value = self.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise ModelError(f"the GGUF file has no key {self.architecture}.{key}")
        return value

    def take(self, name: str) -> Array:
        """Return a dequantized tensor. Raise `ModelError` if it does not exist or was already taken."""
        try:
            tensor = self._unread.pop(name)
            return np.ascontiguousarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        except (KeyError, NotImplementedError) as error:
            raise ModelError(f"the tensor {name!r} can't be read from the GGUF file: {error}") from error

    def has(self, name: str) -> bool:
        """Return whether the tensor can be taken."""
        return name in self._unread

    def check_all_taken(self) -> None:
        """Raise `ModelError` if tensors are left over: the model has another architecture then."""
        if self._unread:
            names = ", ".join(sorted(self._unread)[:3])
            raise ModelError(f"the GGUF file has tensors that a plain Llama does not have, such as {names}")
