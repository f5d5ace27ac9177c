"""Read the header of a GGUF file: its keys and the places of its tensors. No number in it is believed.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from msgspec import Struct

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

_MAGIC_BYTES = 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of fixed size, as `struct` names them."""
_TEXT, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_ALIGNMENT = "general.alignment"
_DEFAULT_ALIGNMENT = 32
_LENGTH = struct.Struct("<Q")


class TensorInfo(Struct, frozen=True):
    """Where a tensor is, and how it is stored."""

    file: Path
    shape: tuple[int, ...]
    """Rows are along the last dimension, as in numpy. GGUF writes the reverse."""
    type: GGMLQuantizationType
    offset: int
    """First byte in the file."""

    @property
    def row_bytes(self) -> int:
        """Number of bytes of one row."""
        values, size = GGML_QUANT_SIZES[self.type]
        return self.shape[-1] // values * size

    @property
    def rows(self) -> int:
        """Number of rows of all dimensions but the last."""
        return math.prod(self.shape[:-1])


class Header(Struct, frozen=True):
    """The keys of a file and its tensors by name."""

    keys: dict[str, Any]
    """A value, or an `ArrayPlace`."""
    tensors: dict[str, TensorInfo]


class ArrayPlace(Struct, frozen=True):
    """An array that is read on demand, since most starts do not need the vocabulary."""

    file: Path
    type: int
    length: int
    offset: int

    def read(self) -> list[Any]:
        """Return the elements. Raise `OSError` and `UnicodeDecodeError`."""
        with self.file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if self.type != _TEXT:
                kind = f"<{self.length}{_SCALARS[self.type]}"
                return list(struct.unpack_from(kind, content, self.offset))
            texts, at = [], self.offset
            for _ in range(self.length):
                [length] = _LENGTH.unpack_from(content, at)
                at += _LENGTH.size + length
                texts.append(content[at - length : at].decode())
            return texts


def read_header(path: Path) -> Header:
    """Read and check the header. Raise `ModelError` if a number is absurd or points beyond the file."""
    try:
        check_regular(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(path, content).read()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} can't be read as GGUF: a text is not UTF-8") from error
    except (ValueError, struct.error) as error:  # an empty file, and a number beyond the end
        raise ModelError(f"{path} can't be read as GGUF: it is truncated") from error


class _Reader:
    """A position in the header of a little-endian file."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path = path
        self._content = content
        self._at = _MAGIC_BYTES
        self._elements = 0

    def read(self) -> Header:
        """Read the header up to the tensors' data."""
        version = self._number("I")
        if version not in _VERSIONS:
            big_endian = int.from_bytes(version.to_bytes(4, "big"), "little") in _VERSIONS
            self._reject("it is big-endian" if big_endian else f"version {version} is not supported")
        count = self._count(MAX_TENSORS, "tensors", self._number("Q"))
        keys = dict(self._key() for _ in range(self._count(MAX_KEYS, "keys", self._number("Q"))))
        places = [self._tensor() for _ in range(count)]
        alignment = keys.get(_ALIGNMENT, _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment != alignment & -alignment:
            self._reject(f"the alignment {alignment} is not a power of two")
        start = self._at + -self._at % alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, kind, offset in places:
            if name in tensors:
                self._reject(f"it has two tensors {name!r}")
            tensors[name] = self._checked(name, shape, kind, start + offset)
        return Header(keys, tensors)

    def _checked(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> TensorInfo:
        """Return where a tensor is; raise `ModelError` unless it is complete."""
        try:
            tensor = TensorInfo(self._path, shape, GGMLQuantizationType(kind), offset)
        except ValueError:
            self._reject(f"the tensor {name!r} has the unknown type {kind}")
        block = GGML_QUANT_SIZES[tensor.type][0]
        if shape[-1] % block:
            self._reject(f"rows of {shape[-1]} values in {name!r}; {tensor.type.name} has blocks of {block}")
        missing = offset + tensor.rows * tensor.row_bytes - len(self._content)
        if missing > 0:
            self._reject(f"it is truncated: {missing} bytes of the tensor {name!r} are missing")
        return tensor

    def _key(self) -> tuple[str, Any]:
        name, kind = self._text(MAX_NAME_BYTES), self._number("I")
        if kind == _TEXT:
            return name, self._text(MAX_TEXT_BYTES)
        return name, self._array() if kind == _ARRAY else self._number(self._scalar(kind))

    def _array(self) -> ArrayPlace:
        kind, length = self._number("I"), self._number("Q")
        self._elements = self._count(MAX_ELEMENTS, "elements in arrays", self._elements + length)
        place = ArrayPlace(self._path, kind, length, self._at)
        if kind == _TEXT:
            self._skip_texts(length)
        else:
            self._skip(length * struct.calcsize(self._scalar(kind)))
        return place

    def _skip_texts(self, count: int) -> None:
        """Skip texts. This loop runs once per token of the vocabulary."""
        content, at, unpack = self._content, self._at, _LENGTH.unpack_from
        for _ in range(count):
            [length] = unpack(content, at)
            if length > MAX_TEXT_BYTES:
                self._count(MAX_TEXT_BYTES, "bytes in a text", length)
            at += _LENGTH.size + length
        self._at = at
        self._skip(0)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return a tensor's name, shape, type and offset from the start of the data."""
        name = self._text(MAX_NAME_BYTES)
        count = self._count(MAX_DIMENSIONS, "dimensions of a tensor", self._number("I"))
        shape = tuple(self._number("Q") for _ in range(count))[::-1] or (1,)
        self._count(MAX_VALUES, "values in a tensor", math.prod(shape))
        kind = self._number("I")
        return name, shape, kind, self._count(len(self._content), "bytes before a tensor", self._number("Q"))

    def _scalar(self, kind: int) -> str:
        return _SCALARS.get(kind) or self._reject(f"a value has the unknown type {kind}")

    def _number(self, kind: str) -> Any:
        size = struct.calcsize(kind)
        [number] = struct.unpack_from(f"<{kind}", self._content, self._at)
        self._at += size
        return float(str(np.float32(number))) if kind == "f" else number  # 0.1, not 0.10000000149

    def _text(self, max_bytes: int) -> str:
        length = self._count(max_bytes, "bytes in a text", self._number("Q"))
        start = self._at
        self._skip(length)
        return self._content[start : self._at].decode()

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
