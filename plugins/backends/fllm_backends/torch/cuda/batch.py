"""One batch as numbers for the device: everything in one int32 tensor, sent with one copy."""

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
"""In numbers: each part begins at 16 bytes, so that a kernel is compiled for one alignment only."""

Integers = NDArray[np.int32]


class Decodes(NamedTuple):
    """Rows with one new token each."""

    tokens: Tensor
    """Where they lie in the batch: [rows]."""
    lengths: Tensor
    """Tokens that each may attend to; 0 for a row that only fills the grid: [rows]."""


class Batch(NamedTuple):
    """One batch on the device. All are int32."""

    width: Tensor
    """[1]: blocks in each row of ``tables``; on the device, so that a recorded graph takes any."""
    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    """Where the new tokens' keys and values go; -1: nowhere."""
    decodes: Decodes
    tiles: Tensor
    """Rows with several new tokens, in tiles of at most `QUERIES` of them; [tiles, 4]: row of ``tables``,
    first token in the batch, its position, and how many."""
    tables: Tensor
    """Block tables, one after the other; those of ``decodes`` come first."""


class HostBatch(NamedTuple):
    """The same in the host's memory."""

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
        """Numbers in the packed batch."""
        return self._starts()[-1]

    def pack(self, *, pinned: bool) -> Tensor:
        """All parts in one tensor; ``pinned``: where a device may fetch it while the host goes on."""
        buffer = torch.empty(self.size, dtype=torch.int32, pin_memory=pinned)
        numbers = buffer.numpy()
        for start, part in zip(self._starts(), self, strict=False):
            numbers[start : start + part.size] = part.reshape(-1)
        return buffer

    def view(self, buffer: Tensor) -> Batch:
        """A buffer that begins with these parts, as a batch."""
        parts = [
            buffer[start : start + part.size] for start, part in zip(self._starts(), self[:-1], strict=False)
        ]
        width, token_ids, positions, slots, tokens, lengths, tiles = parts
        tables = buffer[self._starts()[-2] :]
        return Batch(width, token_ids, positions, slots, Decodes(tokens, lengths), tiles.view(-1, 4), tables)

    def padded(self, rows: int) -> HostBatch:
        """A batch of decodes alone, as one of so many rows: those added compute, but leave no trace."""

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


def prepare(rows: Sequence[Row], token_ids: Integers, block_size: int) -> HostBatch:
    """``token_ids``: the new tokens of all rows, row after row."""
    starts = np.array([row.start for row in rows], np.int32)
    counts = np.array([row.count for row in rows], np.int32)
    firsts = np.cumsum(counts, dtype=np.int32) - counts
    tables = _tables(rows, starts + counts, block_size)
    row_of = np.repeat(np.arange(len(rows)), counts)
    positions = np.arange(len(row_of), dtype=np.int32) + (starts - firsts)[row_of]
    slots = tables[row_of, positions // block_size] * block_size + positions % block_size
    order = np.argsort(counts > 1, kind="stable")  # the rows with one token, then the others
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


def decodes_size(rows: int, blocks: int) -> int:
    """Numbers in a packed batch of so many decodes, each with a table of so many blocks."""
    each = np.empty(rows, np.int32)
    nothing = np.empty((0, 4), np.int32)
    return HostBatch(each[:1], each, each, each, each, each, nothing, np.empty((rows, blocks), np.int32)).size


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
