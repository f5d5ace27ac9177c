"""Write the tokenizer and the settings of a GGUF model in Hugging Face's layout, once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from fllm.containment import mapped
from fllm.errors import FllmError, ModelError, format_error
from fllm_backends.checkpoints.cache import create_once
from fllm_backends.checkpoints.gguf.config import config, generation_config
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tokenizer import tokenizer, tokenizer_config

FORMAT_VERSION = 2
"""Part of the cache key. Increase it when the result changes."""


def extract_once(metadata: Metadata, fingerprint: str) -> Path:
    """Return the directory of the settings and the tokenizer; write it if the cache has none.

    It has no ``config.json`` if the architecture is not supported. Raise `ModelError`.
    """
    file = metadata.files[0]
    name = f"{file.stem}-{fingerprint[:16]}-{FORMAT_VERSION}"
    try:
        return create_once("gguf", name, lambda directory: extract(metadata, directory))
    except OSError as error:
        raise ModelError(
            f"the tokenizer of {file} can't be written ({error}); "
            "set FLLM_CACHE to another directory for extracted tokenizers"
        ) from error


def check_keys(metadata: Metadata) -> None:
    """Raise `ModelError` if no ``config.json`` can be derived from the keys."""
    with _failing_on(metadata):
        config(metadata)


def _failing_on(metadata: Metadata) -> mapped:
    """Return a context in which any error of the values in a file is a `ModelError` that names it."""
    return mapped(
        lambda error: ModelError(f"{metadata.files[0]} can't be read: {format_error(error)}"),
        passing=(FllmError, OSError),
        base_exceptions=True,  # the tokenizers library panics
    )


def extract(metadata: Metadata, directory: Path) -> None:
    """Write the tokenizer, the chat template and the settings to a directory. Raise `ModelError`."""
    with _failing_on(metadata):
        with suppress(ModelError):
            _write_json(directory / "config.json", config(metadata))
        _write_json(directory / "generation_config.json", generation_config(metadata))
        _write_json(directory / "tokenizer_config.json", tokenizer_config(metadata))
        (directory / "tokenizer.json").write_text(tokenizer(metadata).to_str(pretty=True), "utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    present = {key: value for key, value in content.items() if value is not None}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(present), indent=2))
