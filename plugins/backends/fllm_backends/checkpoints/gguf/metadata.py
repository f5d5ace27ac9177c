"""Read the keys and the tensors of a GGUF file on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fllm.containment import mapped
from fllm.errors import ModelError, format_error
from fllm_backends.checkpoints.gguf.header import check_header


class Metadata:
    """The keys and tensors of an open file. ``{arch}`` in a key stands for the file's architecture."""

    def __init__(self, path: Path) -> None:
        import gguf

        check_header(path)
        with mapped(lambda error: ModelError(f"{path} can't be read as GGUF: {format_error(error)}")):
            self._reader = gguf.GGUFReader(path)
        self.architecture = str(self.get("general.architecture", ""))
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in self._reader.tensors}

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or ``default``."""
        field = self._reader.get_field(key.replace("{arch}", getattr(self, "architecture", "")))
        return default if field is None else field.contents()

    def require(self, key: str) -> Any:
        """Return the value of a key; raise `ModelError` if the file lacks it."""
        value = self.get(key)
        if value is None:
            raise ModelError(f"the GGUF file lacks {key.replace('{arch}', self.architecture)!r}")
        return value
