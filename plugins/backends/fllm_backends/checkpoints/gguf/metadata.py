"""Read the keys and the tensors of a GGUF model, which may be split into several files."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Protocol

from fllm.containment import mapped
from fllm.errors import ModelError, format_error
from fllm_backends.checkpoints.gguf.header import ArrayPlace, Header, TensorInfo, read_header

log = logging.getLogger("fllm.model")

MAX_PARTS = 1000
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
"""Name of one file of a split model, as llama-gguf-split writes it."""


class Keys(Protocol):
    """The keys of a GGUF model, or of a tokenizer in another format that is described in the same way."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or ``default``."""
        ...

    def require(self, key: str) -> Any:
        """Return the value of a key; raise `ModelError` if there is none."""
        ...


class Metadata:
    """The keys and tensors of a model. ``{arch}`` in a key stands for the model's architecture.

    Only the first file of a split model has the keys. Raise `ModelError` if a file is missing or invalid.
    """

    def __init__(self, path: Path) -> None:
        self.files = part_files(path)
        headers = [read_header(file) for file in self.files]
        self._keys = headers[0].keys
        self._values: dict[str, Any] = {}
        self.architecture = str(self.get("general.architecture", ""))
        self.tensors: dict[str, TensorInfo] = {}
        for file, header in zip(self.files, headers, strict=True):
            _check_part(file, header, len(headers))
            if repeated := self.tensors.keys() & header.tensors:
                raise ModelError(f"{file} repeats the tensor {min(repeated)!r} of another part")
            self.tensors |= header.tensors

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or ``default``. Raise `ModelError` if an array can't be read."""
        name = key.replace("{arch}", getattr(self, "architecture", ""))
        value = self._keys.get(name)
        if isinstance(value, ArrayPlace):
            if name not in self._values:
                with mapped(lambda error: ModelError(f"{self.files[0]}: {name}: {format_error(error)}")):
                    self._values[name] = value.read()
            return self._values[name]
        return default if value is None else value

    def require(self, key: str) -> Any:
        """Return the value of a key; raise `ModelError` if the file lacks it."""
        value = self.get(key)
        if value is None:
            raise ModelError(f"the GGUF file lacks {key.replace('{arch}', self.architecture)!r}")
        return value


def part_files(path: Path) -> list[Path]:
    """Return all files of the model that a file belongs to, the one with the keys first.

    Raise `ModelError` if one is missing.
    """
    match = _PART.fullmatch(path.name)
    if not match:
        return [path]
    count = int(match[3])
    if not 1 <= int(match[2]) <= count <= MAX_PARTS:
        raise ModelError(f"{path} can't be a part of a split model: part {int(match[2])} of {count}")
    files = [path.with_name(f"{match[1]}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1)]
    for file in files:
        if not file.exists():
            raise ModelError(f"{path} is one of {count} parts, of which {file.name} is missing")
    if path != files[0]:
        log.info("%s is part %d of %d: the model begins with %s", path, int(match[2]), count, files[0].name)
    return files


def _check_part(file: Path, header: Header, parts: int) -> None:
    """Raise `ModelError` if a file of a split model has lost its name or was mixed up with another."""
    declared = header.keys.get("split.count", 0) or 1
    if declared != parts:
        name = f"its name says {parts}" if parts > 1 else "it is not named ...-00001-of-0000N.gguf"
        raise ModelError(f"{file} is one of {declared} parts, but {name}")
