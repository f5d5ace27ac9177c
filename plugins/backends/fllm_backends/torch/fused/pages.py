"""Where the tokens of a batch are in a cache of pages, and which of them attend together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fllm.batching.runner import Row
from fllm_backends.torch.fused.arrays import Integers
from fllm_backends.torch.fused.formats import PANEL
from fllm_backends.torch.fused.jit import kernel

QUERIES_PER_TILE = 48
"""Maximum rows of an attention tile: neighbouring tokens times the heads that share a kv head."""
_LAYOUTS = 64
"""Number of different batches whose tiles are kept: those that only decode have the same in each step."""


class PageTables:
    """The pages of the rows of a batch: [rows, pages], padded, kept from step to step.

    Most rows have the place that they had in the last step, and the same blocks or one more. What a place
    holds is compared with the row's block table, so it does not matter how the two have changed.
    """

    def __init__(self, pages: int) -> None:
        """Create empty tables; a block has ``pages`` pages of `PANEL` tokens."""
        self.pages = pages
        self._blocks: list[list[int]] = []
        """Blocks whose pages each row of the array holds."""
        self._array: Integers = np.zeros((0, 0), np.int64)

    def update(self, rows: Sequence[Row]) -> Integers:
        """Return the tables of these rows. The array may have more rows, and changes with the next call."""
        self._make_room(len(rows), max(len(row.block_table) for row in rows) * self.pages)
        for index, row in enumerate(rows):
            if self._blocks[index] != row.block_table:
                self._write(index, row.block_table)
        return self._array

    def _make_room(self, rows: int, width: int) -> None:
        height, present = self._array.shape
        if rows > height or width > present:
            array = np.zeros((max(rows, height), 2 * width if width > present else present), np.int64)
            array[:height, :present] = self._array
            self._array = array
            self._blocks += [[] for _ in range(rows - height)]

    def _write(self, index: int, table: Sequence[int]) -> None:
        blocks = self._blocks[index]
        start = len(blocks) if table[: len(blocks)] == blocks else 0
        new = table[start:]
        pages = np.array(new, np.int64)[:, None] * self.pages + np.arange(self.pages)
        self._array[index, start * self.pages : len(table) * self.pages] = pages.ravel()
        blocks[start:] = new


class PagePlaces(NamedTuple):
    """Where the new tokens of a batch are: in their sequences, and in the cache."""

    positions: Integers
    slots: Integers
    tables: Integers
    """Pages of each row: see `PageTables.update`."""

    @classmethod
    def of(cls, rows: Sequence[Row], tables: PageTables) -> PagePlaces:
        """Return the places of some rows."""
        counts = np.array([row.count for row in rows])
        positions = np.empty(counts.sum(), np.int64)
        places = cls(positions, np.empty_like(positions), tables.update(rows))
        _locate(np.array([row.start for row in rows]), counts, *places)
        return places


@kernel(fastmath=False)
def _locate(starts: Any, counts: Any, positions: Any, slots: Any, tables: Any) -> None:
    """Write the position and the slot of each new token of rows with these starts and counts."""
    at = 0
    for row in range(len(starts)):
        for position in range(starts[row], starts[row] + counts[row]):
            positions[at] = position
            slots[at] = tables[row, position // PANEL] * PANEL + position % PANEL
            at += 1


def tokens_per_tile(heads: int, kv_heads: int) -> int:
    """Return the number of tokens of an attention tile."""
    return max(1, QUERIES_PER_TILE * kv_heads // heads)


def tile_rows(heads: int, kv_heads: int) -> int:
    """Return the number of queries of an attention tile, as a multiple of 4."""
    return -(-heads // kv_heads * tokens_per_tile(heads, kv_heads) // 4) * 4


def tiles(rows: Sequence[Row], size: int) -> Integers:
    """Return the tiles of a batch, of ``size`` tokens at most: see `Batch.tiles`."""
    return _tiles(tuple([row.count for row in rows]), size)


@lru_cache(_LAYOUTS)
def _tiles(counts: tuple[int, ...], size: int) -> Integers:
    found, at = [], 0
    for index, count in enumerate(counts):
        found += [(at + i, min(size, count - i), index) for i in range(0, count, size)]
        at += count
    return np.array(found)
