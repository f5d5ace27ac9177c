"""Identify the weights of a model by the headers of its files and by samples of each tensor."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from fllm.containment import mapped
from fllm.errors import ModelError, format_error
from fllm.files import check_regular

SAMPLE_BYTES = 4096
"""Bytes at the beginning, in the middle and at the end of each tensor."""
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100 << 20
"""Longest header of a safetensors file, as in its library."""


class _Place(Struct):
    data_offsets: tuple[int, int]


def fingerprint_weights(files: Iterable[Path]) -> str:
    """Return a digest of the sizes, the headers, and samples of each tensor. Raise `ModelError`.

    Training changes every tensor that it changes nearly everywhere, so that samples tell two checkpoints
    apart, wherever they are and however they were copied. Whole files would take minutes for a large model.
    A file of another kind is a header as a whole.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with mapped(partial(_unreadable, path), passing=(ModelError,)):
            check_regular(path)
            with path.open("rb") as file:
                _update(digest, file, path)
    return digest.hexdigest()


def _unreadable(path: Path, error: BaseException) -> ModelError:
    return ModelError(f"{path} can't be read: {format_error(error)}")


def _update(digest: hashlib.blake2b, file: BinaryIO, path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    bounds = sorted(_tensor_bounds(file, path, size))
    header_end = bounds[0] if bounds else size
    file.seek(0)
    digest.update(b"%d;%d;" % (size, len(bounds)))
    digest.update(file.read(header_end))
    for start, end in pairwise([*bounds, size]):
        last = max(end - SAMPLE_BYTES, start)
        for place in (start, (start + last) // 2, last):
            file.seek(place)
            digest.update(file.read(min(SAMPLE_BYTES, end - place)))


def _tensor_bounds(file: BinaryIO, path: Path, size: int) -> set[int]:
    """Return where the tensors of a file begin; nothing for a file without tensors."""
    if path.suffix == ".gguf":
        from fllm_backends.checkpoints.gguf.header import read_header

        return {tensor.offset for tensor in read_header(path).tensors.values()}
    if path.suffix != ".safetensors":
        return set()
    return set(_safetensors_bounds(file, size))


def _safetensors_bounds(file: BinaryIO, size: int) -> Iterator[int]:
    file.seek(0)
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > min(size, _MAX_HEADER_BYTES):
        raise ValueError("its header is longer than the file")
    header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
    for name, place in header.items():
        if name != "__metadata__":
            start, _ = msgspec.json.decode(place, type=_Place).data_offsets
            yield min(_LENGTH_BYTES + length + start, size)
