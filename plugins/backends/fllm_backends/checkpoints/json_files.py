"""Read the JSON files of a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fllm.errors import ModelError

T = TypeVar("T")


def read_json(path: Path, kind: type[T]) -> T:
    """Decode a file as ``kind``; raise `ModelError` with the file's name if that fails."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{path} is invalid: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Decode a file as a JSON object of any content; return ``{}`` if the file does not exist."""
    return read_json(path, dict[str, Any]) if path.is_file() else {}
