"""Check the header of a GGUF file before the gguf library reads it, which believes every number.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import NoReturn

from fllm.errors import ModelError
from fllm.files import check_regular

MAX_KEYS = 10_000
MAX_TENSORS = 100_000
MAX_ELEMENTS = 8_000_000
"""Maximum number of elements of all arrays. Large vocabularies have 600,000, with their merges."""
MAX_NAME_BYTES = 64 * 1024
MAX_TEXT_BYTES = 1024**2
MAX_DIMENSIONS = 4
MAX_VALUES = 2**40
"""Maximum number of values of a tensor."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
"""Types of fixed size, as `struct` names them."""
_TEXT, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_ALIGNMENT = b"general.alignment"


def check_header(path: Path) -> None:
    """Raise `ModelError` if a number in the header is absurd or points beyond the end of the file."""
    try:
        check_regular(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _Header(path, content).check()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, struct.error) as error:  # an empty file, and a number beyond the end
        raise ModelError(f"{path} can't be read as GGUF: it is truncated") from error


class _Header:
    """A position in the header of a little-endian file. Others are left to the library."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._at = 4  # after the magic number
        self._elements = 0

    def check(self) -> None:
        """Read the header up to the tensors' data."""
        version = self._number("I")
        if version not in _VERSIONS:
            self._reject(f"version {version} is not supported")
        tensors = self._count(MAX_TENSORS, "tensors", self._number("Q"))
        keys = self._count(MAX_KEYS, "keys", self._number("Q"))
        for _ in range(keys):
            self._skip_key()
        for _ in range(tensors):
            self._skip_tensor()

    def _skip_key(self) -> None:
        name, kind = self._text(MAX_NAME_BYTES), self._number("I")
        if name == _ALIGNMENT:
            alignment = self._number(_SCALARS.get(kind, "I"))
            if alignment < 1 or alignment != alignment & -alignment:
                self._reject(f"the alignment {alignment} is not a power of two")
        else:
            self._skip_value(kind)

    def _skip_value(self, kind: int) -> None:
        if kind == _TEXT:
            self._text(MAX_TEXT_BYTES)
        elif kind == _ARRAY:
            self._skip_array()
        else:
            self._number(self._scalar(kind))

    def _skip_array(self) -> None:
        kind, length = self._number("I"), self._number("Q")
        self._elements = self._count(MAX_ELEMENTS, "elements in arrays", self._elements + length)
        if kind == _TEXT:
            for _ in range(length):
                self._text(MAX_TEXT_BYTES)
        else:
            self._skip(length * struct.calcsize(self._scalar(kind)))

    def _skip_tensor(self) -> None:
        self._text(MAX_NAME_BYTES)
        count = self._count(MAX_DIMENSIONS, "dimensions of a tensor", self._number("I"))
        self._count(MAX_VALUES, "values in a tensor", math.prod(self._number("Q") for _ in range(count)))
        self._number("I")  # the type
        self._count(len(self._content), "bytes before a tensor", self._number("Q"))

    def _scalar(self, kind: int) -> str:
        return _SCALARS.get(kind) or self._reject(f"a value has the unknown type {kind}")

    def _number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        [number] = struct.unpack_from(f"<{kind}", self._content, self._at)
        self._at += size
        return int(number) if math.isfinite(number) else 0

    def _text(self, max_bytes: int) -> bytes:
        length = self._count(max_bytes, "bytes in a text", self._number("Q"))
        start = self._at
        self._skip(length)
        return self._content[start : self._at]

    def _skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._content):
            raise ValueError("the file ends before the header")

    def _count(self, maximum: int, what: str, count: int) -> int:
        """Return the count; raise `ModelError` if it exceeds the maximum."""
        if count > maximum:
            self._reject(f"it declares {count} {what}; at most {maximum}")
        return count

    def _reject(self, why: str) -> NoReturn:
        raise ModelError(f"{self._path} can't be read as GGUF: {why}")
