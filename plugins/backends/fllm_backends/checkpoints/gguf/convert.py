"""Convert a GGUF file to Hugging Face's layout once, and keep the result in the cache directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from fllm.containment import mapped
from fllm.errors import FllmError, ModelError, format_error
from fllm.values import Progress
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.checkpoints.cache import create_once
from fllm_backends.checkpoints.gguf.config import config, generation_config
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tensors import DTYPES, convert_tensors
from fllm_backends.checkpoints.gguf.tokenizer import tokenizer, tokenizer_config
from fllm_backends.checkpoints.safetensors_writer import ShardWriter

FORMAT_VERSION = 1
"""Part of the cache key. Increase it when the result of a conversion changes."""
TASK = "Converting the GGUF file"


def convert_once(file: Path, fingerprint: str, dtype: str, progress: Callable[[Progress], None]) -> Path:
    """Return the directory of the converted model; convert it if the cache has none. Raise `ModelError`."""
    name = f"{file.stem}-{fingerprint[:16]}-{dtype}-{FORMAT_VERSION}"
    return _create_once(name, lambda directory: convert(file, directory, dtype, progress))


def extract_tokenizer_once(file: Path, fingerprint: str) -> Path:
    """Return the directory of the tokenizer and the settings alone; extract them if the cache has none."""
    name = f"{file.stem}-{fingerprint[:16]}-described-{FORMAT_VERSION}"

    def write(directory: Path) -> None:
        with _failing_on(file):
            _write_tokenizer(Metadata(file), directory)

    return _create_once(name, write)


def convert(file: Path, directory: Path, dtype: str, progress: Callable[[Progress], None]) -> None:
    """Write the model of a GGUF file in Hugging Face's layout, with weights of ``dtype`` (see `DTYPES`)."""
    with _failing_on(file):
        metadata = Metadata(file)
        _write_json(directory / "config.json", config(metadata))
        _check_architecture(file, directory)
        _write_tokenizer(metadata, directory)
        _write_weights(metadata, directory, dtype, progress)


def _check_architecture(file: Path, directory: Path) -> None:
    """Raise `ModelError` if the converted configuration is invalid, before the weights are converted."""
    try:
        read_architecture(directory)
    except ModelError as error:
        reason = error.message.replace(str(directory / "config.json"), "its configuration")
        raise ModelError(f"{file}: {reason}") from error


def _failing_on(file: Path) -> mapped:
    """Return a context in which any error of the values in a file is a `ModelError` that names it."""
    return mapped(
        lambda error: ModelError(f"{file} can't be converted: {format_error(error)}"),
        passing=(FllmError, OSError),
        base_exceptions=True,  # the tokenizers library panics
    )


def _create_once(name: str, write: Callable[[Path], None]) -> Path:
    try:
        return create_once("gguf", name, write)
    except OSError as error:
        raise ModelError(
            f"the converted model can't be written ({error}); "
            "set FLLM_CACHE to another directory for converted models"
        ) from error


def _write_tokenizer(metadata: Metadata, directory: Path) -> None:
    """Write the tokenizer, the chat template and the generation settings."""
    _write_json(directory / "generation_config.json", generation_config(metadata))
    _write_json(directory / "tokenizer_config.json", tokenizer_config(metadata))
    (directory / "tokenizer.json").write_text(tokenizer(metadata).to_str(pretty=True), "utf-8")


def _write_weights(
    metadata: Metadata, directory: Path, dtype: str, progress: Callable[[Progress], None]
) -> None:
    writer, total = ShardWriter(directory, DTYPES[dtype].name), len(metadata.tensors)
    for done, (name, tensor) in enumerate(convert_tensors(metadata, dtype)):
        progress(Progress(TASK, done, total))
        writer.add(name, tensor)
    writer.finish()
    progress(Progress(TASK, total, total))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    present = {key: value for key, value in content.items() if value is not None}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(present), indent=2))
