"""Split GGUF's blocks into the values and the scales of a packed format, as integers, without rounding.

The layout of the blocks is that of ``ggml-common.h`` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.formats import (
    Q3_K,
    Q4_0,
    Q4_1,
    Q4_K,
    Q5_0,
    Q5_1,
    Q5_K,
    Q6_K,
    Q8_0,
    Q8_1,
    Format,
)

Bytes = NDArray[np.uint8]


class QuantizedRows(NamedTuple):
    """Rows in a format, before they are packed."""

    values: Bytes
    """[rows, columns]"""
    scales: list[NDArray[Any]]
    """What scales the values of a block, in the order of the format: [rows, blocks, numbers] each."""


Repack = Callable[[Bytes], QuantizedRows]
"""Splits [rows, bytes of a row]."""


def _q4_0(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 18)
    return QuantizedRows(_nibbles(blocks[..., 2:]), [_halves(blocks, 0)])


def _q4_1(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 20)
    return QuantizedRows(_nibbles(blocks[..., 4:]), [_halves(blocks, 0), _halves(blocks, 2)])


def _q5_0(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 22)
    return QuantizedRows(_five_bits(blocks[..., 2:]), [_halves(blocks, 0)])


def _q5_1(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 24)
    return QuantizedRows(_five_bits(blocks[..., 4:]), [_halves(blocks, 0), _halves(blocks, 2)])


def _q8_0(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 34)
    return QuantizedRows((blocks[..., 2:] ^ np.uint8(128)).reshape(len(rows), -1), [_halves(blocks, 0)])


def _iq4_nl(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 18)
    return QuantizedRows(_IQ4_VALUES[_nibbles(blocks[..., 2:])], [_halves(blocks, 0)])


_IQ4_VALUES = np.array([1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241], np.uint8)
"""What the 4 bits of IQ4_NL stand for (``kvalues_iq4nl``), plus 128."""


def _q3_k(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 110)
    low = _shifted(blocks[..., 32:96].reshape(*blocks.shape[:2], 2, 32), (0, 2, 4, 6)) & np.uint8(3)
    high = _shifted(blocks[..., :32], range(8)) & np.uint8(1)
    values = low.reshape(len(rows), -1) + (high.reshape(len(rows), -1) << np.uint8(2)) + np.uint8(4)
    scales = _shifted(blocks[..., 96:104], (0, 4)).reshape(*blocks.shape[:2], 16) & np.uint8(15)
    ends = _shifted(blocks[..., 104:108], (0, 2, 4, 6)).reshape(*blocks.shape[:2], 16) & np.uint8(3)
    return QuantizedRows(
        values, [(scales | ends << np.uint8(4)).view(np.int8) - np.int8(32), _halves(blocks, 108)]
    )


def _q4_k(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 144)
    return QuantizedRows(_nibbles(blocks[..., 16:].reshape(len(rows), -1, 32)), _nested_scales(blocks))


def _q5_k(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 176)
    low = _nibbles(blocks[..., 48:].reshape(len(rows), -1, 32))
    high = _shifted(blocks[..., 16:48], range(8)) & np.uint8(1)
    return QuantizedRows(low | high.reshape(low.shape) << np.uint8(4), _nested_scales(blocks))


def _q6_k(rows: Bytes) -> QuantizedRows:
    blocks = rows.reshape(len(rows), -1, 210)
    low = _nibbles(blocks[..., :128].reshape(len(rows), -1, 64))
    high = _shifted(blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 32), (0, 2, 4, 6)) & np.uint8(3)
    values = low | high.reshape(low.shape) << np.uint8(4)
    return QuantizedRows(values, [blocks[..., 192:208].view(np.int8), _halves(blocks, 208)])


def _halves(blocks: Bytes, at: int) -> NDArray[np.float16]:
    """Return the float16 at an offset in each block: [rows, blocks, 1]."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2")


def _nibbles(both: Bytes) -> Bytes:
    """Return the low halves of each line of bytes, then the high halves: [rows, columns]."""
    halves = np.empty((*both.shape[:-1], 2, both.shape[-1]), np.uint8)
    np.bitwise_and(both, 15, out=halves[..., 0, :])
    np.right_shift(both, 4, out=halves[..., 1, :])
    return halves.reshape(len(both), -1)


def _five_bits(blocks: Bytes) -> Bytes:
    """Return the values of blocks of 4 bytes of high bits and 16 bytes of low halves."""
    low = _nibbles(blocks[..., 4:])
    high = np.unpackbits(blocks[..., :4], axis=-1, bitorder="little")
    return low | high.reshape(low.shape) << np.uint8(4)


def _shifted(lines: Bytes, shifts: Any) -> Bytes:
    """Return each line of bytes shifted to the right by each of some numbers of bits."""
    return lines[..., None, :] >> np.array(shifts, np.uint8)[:, None]


def _nested_scales(blocks: Bytes) -> list[NDArray[Any]]:
    """Split the first 16 bytes of blocks of 8 groups: scales and minima of 6 bits, and their scales."""
    first, second, third = (blocks[..., at : at + 4] for at in (4, 8, 12))
    six, two, four = np.uint8(63), np.uint8(6), np.uint8(4)
    scales = np.concatenate([first & six, third & np.uint8(15) | first >> two << four], axis=-1)
    minima = np.concatenate([second & six, third >> four | second >> two << four], axis=-1)
    ends = (scales >> four | minima >> four << np.uint8(2)).astype(np.uint32)
    high = np.bitwise_or.reduce(ends << (4 * np.arange(8, dtype=np.uint32)), axis=-1, keepdims=True)
    low = scales & np.uint8(15) | minima << four
    return [low, high, np.concatenate([_halves(blocks, 0), -_halves(blocks, 2)], axis=-1)]


REPACK: dict[str, tuple[Format, Repack]] = {
    "Q4_0": (Q4_0, _q4_0),
    "Q4_1": (Q4_1, _q4_1),
    "Q5_0": (Q5_0, _q5_0),
    "Q5_1": (Q5_1, _q5_1),
    "Q8_0": (Q8_0, _q8_0),
    "IQ4_NL": (Q8_0, _iq4_nl),
    "Q3_K": (Q3_K, _q3_k),
    "Q4_K": (Q4_K, _q4_k),
    "Q5_K": (Q5_K, _q5_k),
    "Q6_K": (Q6_K, _q6_k),
}
"""The format of the rows of each of GGUF's types, and the function that splits them."""


def packed_bits(gguf_type: str) -> float:
    """Return the bits of a weight of one of GGUF's types once it is packed."""
    if found := REPACK.get(gguf_type):
        return found[0].bits_per_weight
    return _REQUANTIZED.get(gguf_type, Q8_1).bits_per_weight


_REQUANTIZED = {"TQ1_0": Q4_0, "TQ2_0": Q4_0, "MXFP4": Q5_0}
"""Formats that hold the values of other types exactly. What no format holds is rounded to `Q8_1`."""
