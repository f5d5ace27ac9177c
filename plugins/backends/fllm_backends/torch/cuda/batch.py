"""Pack one batch into a single int32 tensor, which is sent to the device in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fllm.batching.runner import Row

QUERIES = 64
"""New tokens of one row that attend together."""
_ALIGNMENT = 4
"""Alignment of each part in int32 elements: 16 bytes, so that a kernel is compiled for one alignment only."""

Integers = NDArray[np.int32]


class Decodes(NamedTuple):
    """Rows with one new token each."""

    tokens: Tensor
    """Positions of the new tokens in the batch: [rows]."""
    lengths: Tensor
    """Number of tokens that each row attends to: [rows]; 0 for padding."""


class Batch(NamedTuple):
    """One batch on the device. All tensors are int32."""

    width: Tensor
    """Blocks in each row of ``tables``: [1]. It is on the device, so that a CUDA graph accepts any width."""
    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    """Cache slots of the new tokens; -1: do not store."""
    decodes: Decodes
    tiles: Tensor
    """Rows with several new tokens in tiles of at most `QUERIES` tokens: [tiles, 4], the row of ``tables``,
    the first token in the batch, its position, and the number of tokens.
    """
    tables: Tensor
    """Block tables, one after the other; those of ``decodes`` come first."""


class HostBatch(NamedTuple):
    """One batch in host memory."""

    width: Integers
    token_ids: Integers
    positions: Integers
    slots: Integers
    tokens: Integers
    lengths: Integers
    tiles: Integers
    tables: Integers

    @property
    def size(self) -> int:
        """Elements of the packed batch."""
        return self._starts()[-1]

    def pack(self, *, pinned: bool) -> Tensor:
        """Pack all parts into one tensor.

        ``pinned`` memory lets the device copy it while the host continues.
        """
        buffer = torch.empty(self.size, dtype=torch.int32, pin_memory=pinned)
        numbers = buffer.numpy()
        for start, part in zip(self._starts(), self, strict=False):
            numbers[start : start + part.size] = part.reshape(-1)
        return buffer

    def view(self, buffer: Tensor) -> Batch:
        """Return a batch whose tensors are views of ``buffer``, which begins with a packed batch."""
        parts = [
            buffer[start : start + part.size] for start, part in zip(self._starts(), self[:-1], strict=False)
        ]
        width, token_ids, positions, slots, tokens, lengths, tiles = parts
        tables = buffer[self._starts()[-2] :]
        return Batch(width, token_ids, positions, slots, Decodes(tokens, lengths), tiles.view(-1, 4), tables)

    def padded_to(self, rows: int) -> HostBatch:
        """Pad a batch of decodes to ``rows`` rows, whose additional ones compute but store nothing."""

        def pad(part: Integers, number: int) -> Integers:
            return np.pad(part, (0, rows - len(part)), constant_values=number)

        return self._replace(
            token_ids=pad(self.token_ids, 0),
            positions=pad(self.positions, 0),
            slots=pad(self.slots, -1),
            tokens=np.arange(rows, dtype=np.int32),
            lengths=pad(self.lengths, 0),
        )

    def _starts(self) -> list[int]:
        starts = [0]
        for part in self:
            starts.append(starts[-1] + -(-part.size // _ALIGNMENT) * _ALIGNMENT)
        return starts


def build_batch(rows: Sequence[Row], token_ids: Integers, block_size: int) -> HostBatch:
    """Build a batch; ``token_ids`` are the new tokens of all rows, row after row."""
    starts = np.array([row.start for row in rows], np.int32)
    counts = np.array([row.count for row in rows], np.int32)
    firsts = np.cumsum(counts, dtype=np.int32) - counts
    tables = _tables(rows, starts + counts, block_size)
    row_of = np.repeat(np.arange(len(rows)), counts)
    positions = np.arange(len(row_of), dtype=np.int32) + (starts - firsts)[row_of]
    slots = tables[row_of, positions // block_size] * block_size + positions % block_size
    order = np.argsort(counts > 1, kind="stable")  # the rows with one token first
    single = order[: int((counts == 1).sum())]
    return HostBatch(
        width=np.array([tables.shape[1]], np.int32),
        token_ids=token_ids,
        positions=positions,
        slots=slots,
        tokens=firsts[single],
        lengths=starts[single] + 1,
        tiles=_tiles(starts[order], counts[order], firsts[order], len(single)),
        tables=tables[order],
    )


def packed_decode_size(rows: int, blocks: int) -> int:
    """Return the number of elements of a packed batch of decodes, each with a table of ``blocks`` blocks."""
    per_row = np.empty(rows, np.int32)
    no_tiles = np.empty((0, 4), np.int32)
    return HostBatch(
        per_row[:1], per_row, per_row, per_row, per_row, per_row, no_tiles, np.empty((rows, blocks), np.int32)
    ).size


def _tables(rows: Sequence[Row], lengths: Integers, block_size: int) -> Integers:
    blocks = -(-lengths // block_size)
    tables = np.zeros((len(rows), blocks.max()), np.int32)
    for table, row, count in zip(tables, rows, blocks.tolist(), strict=True):
        table[:count] = row.block_table[:count]
    return tables


def _tiles(starts: Integers, counts: Integers, firsts: Integers, singles: int) -> Integers:
    tiles = [
        (row, firsts[row] + at, starts[row] + at, min(QUERIES, counts[row] - at))
        for row in range(singles, len(counts))
        for at in range(0, counts[row], QUERIES)
    ]
    return np.array(tiles, np.int32).reshape(-1, 4)
