"""Identify the content of files without reading large ones whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from fllm.errors import ModelError
from fllm.files import check_regular

_SAMPLES, _SAMPLE_BYTES = 64, 64 * 1024


def fingerprint(files: Iterable[Path]) -> str:
    """Return a digest of file sizes and evenly spaced samples, so that large files are not read whole."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        try:
            check_regular(path)
            with path.open("rb") as file:
                _update_digest(digest, file)
        except OSError as error:
            raise ModelError(f"{path} can't be read: {error.strerror}") from error
    return digest.hexdigest()


def _update_digest(digest: hashlib.blake2b, file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    digest.update(f"{size};".encode())
    for index in range(_SAMPLES):
        file.seek(max(size - _SAMPLE_BYTES, 0) * index // (_SAMPLES - 1))
        digest.update(file.read(_SAMPLE_BYTES))
