"""Read the tensors of a GGUF model a few rows at a time, dequantized or as they are."""

from __future__ import annotations

import gguf
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.header import TensorInfo


class TensorRows(Struct, frozen=True):
    """Rows of a tensor as a matrix [rows, columns].

    The file is read, not mapped: what was read does not stay in this process, and a file that is cut off
    while it is read is an error.
    """

    name: str
    """The name in the file, for messages."""
    tensor: TensorInfo
    first: int = 0
    """Row of the tensor at which the matrix begins."""
    count: int | None = None
    """Number of rows; ``None``: all."""
    heads: int = 0
    """Number of heads whose rotary pairs are adjacent in the file and half a head apart here; 0 for none."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.tensor.rows if self.count is None else self.count, self.tensor.shape[-1]

    @property
    def type_name(self) -> str:
        """Quantization of the rows, such as ``Q4_K``."""
        return self.tensor.type.name

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the bytes of rows: [stop - start, bytes of a row]. Raise `ModelError` if they are gone."""
        if not self.heads or self.tensor.rows == 1:  # the values of a bias are ordered when it is read
            return self._read(start, stop)
        half = self.shape[0] // self.heads // 2
        first, last = start // (2 * half), -(-stop // (2 * half))  # whole heads
        rows = self._read(first * 2 * half, last * 2 * half)
        pairs = rows.reshape(last - first, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)
        return np.ascontiguousarray(pairs[start - first * 2 * half : stop - first * 2 * half])

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows as float32: [stop - start, columns]. Raise `ModelError` for an unknown type."""
        if self.tensor.type == gguf.GGMLQuantizationType.Q1_0:
            return _dequantize_q1_0(self.blocks(start, stop))
        try:
            rows: NDArray[np.float32] = gguf.quants.dequantize(self.blocks(start, stop), self.tensor.type)
        except NotImplementedError as error:
            raise ModelError(f"the tensor {self.name!r} can't be read: {error}") from error
        return rows

    def _read(self, start: int, stop: int) -> NDArray[np.uint8]:
        tensor = self.tensor
        rows = np.empty((stop - start, tensor.row_bytes), np.uint8)
        try:
            with tensor.file.open("rb") as file:
                file.seek(tensor.offset + (self.first + start) * tensor.row_bytes)
                complete = file.readinto(rows.data) == rows.nbytes
        except OSError as error:
            raise ModelError(f"{tensor.file} can't be read: {error.strerror}") from error
        if not complete:
            raise ModelError(f"{tensor.file} was cut off while it was read")
        return rows


def _dequantize_q1_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the values of blocks of a scale in float16 and 128 signs, which the gguf library lacks."""
    blocks = blocks.reshape(len(blocks), -1, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q1_0][1])
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
    signs = np.unpackbits(blocks[..., 2:], axis=-1, bitorder="little").astype(np.float32) * 2 - 1
    values: NDArray[np.float32] = scales * signs
    return values.reshape(len(blocks), -1)
