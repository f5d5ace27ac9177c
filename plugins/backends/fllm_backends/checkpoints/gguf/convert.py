"""Convert once, and keep the result in the cache directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from safetensors import SafetensorError

from fllm.errors import ModelError
from fllm.values import Progress
from fllm_backends.checkpoints.cache import cache_directory, made_once
from fllm_backends.checkpoints.gguf.config import config, generation_config
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tokenizer import tokenizer, tokenizer_config
from fllm_backends.checkpoints.safetensors_files import INDEX

if TYPE_CHECKING:
    from torch import Tensor

LAYOUT = 1
"""Goes into the cache's key: to be raised when a conversion gives another result."""
TASK = "Converting the GGUF file"

_SHARD_BYTES = 1024**3


def converted(file: Path, fingerprint: str, dtype: str, progress: Callable[[Progress], None]) -> Path:
    """The directory of the converted model: from the cache, or made now."""
    name = f"{file.stem}-{fingerprint[:16]}-{dtype}-{LAYOUT}"
    return _made_once(name, lambda directory: convert(file, directory, dtype, progress))


def described(file: Path, fingerprint: str) -> Path:
    """The directory of its tokenizer and settings alone: from the cache, or made now."""
    name = f"{file.stem}-{fingerprint[:16]}-described-{LAYOUT}"
    return _made_once(name, lambda directory: describe(Metadata(file), directory))


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    directory = cache_directory() / "gguf" / name
    try:
        made_once(directory, make)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{directory} can't be written ({error}); FLLM_CACHE names another directory for converted models"
        ) from error
    return directory


def convert(file: Path, directory: Path, dtype: str, progress: Callable[[Progress], None]) -> None:
    """Write the model of a GGUF file in Hugging Face's layout."""
    metadata = Metadata(file)
    _write(directory / "config.json", config(metadata))
    describe(metadata, directory)
    _write_weights(metadata, directory, dtype, progress)


def describe(metadata: Metadata, directory: Path) -> None:
    """Write the tokenizer of a GGUF file, and what it says of sampling."""
    _write(directory / "generation_config.json", generation_config(metadata))
    _write(directory / "tokenizer_config.json", tokenizer_config(metadata))
    (directory / "tokenizer.json").write_text(tokenizer(metadata).to_str(pretty=True), "utf-8")


def _write_weights(
    metadata: Metadata, directory: Path, dtype: str, progress: Callable[[Progress], None]
) -> None:
    """In shards, so that no more than one of them is in memory."""
    import torch

    from fllm_backends.checkpoints.gguf.tensors import tensors

    shards, total = _Shards(directory), len(metadata.tensors)
    for done, (name, tensor) in enumerate(tensors(metadata, getattr(torch, dtype))):
        progress(Progress(TASK, done, total))
        shards.add(name, tensor)
    shards.finish()
    progress(Progress(TASK, total, total))


class _Shards:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pending: dict[str, Tensor] = {}
        self._bytes = 0
        self._files: dict[str, str] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        self._pending[name] = tensor
        self._bytes += tensor.nbytes
        if self._bytes >= _SHARD_BYTES:
            self._flush()

    def finish(self) -> None:
        self._flush()
        _write(self._directory / INDEX, {"metadata": {}, "weight_map": self._files})

    def _flush(self) -> None:
        from safetensors.torch import save_file

        file = f"model-{len(set(self._files.values())) + 1:05}.safetensors"
        save_file(self._pending, self._directory / file, metadata={"format": "pt"})
        self._files |= dict.fromkeys(self._pending, file)
        self._pending, self._bytes = {}, 0


def _write(path: Path, content: dict[str, Any]) -> None:
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2))
