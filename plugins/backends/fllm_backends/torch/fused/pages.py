"""Where the tokens of a batch are in a cache of pages, and which of them attend together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fllm.batching.runner import Row
from fllm_backends.torch.fused.arrays import Integers
from fllm_backends.torch.fused.formats import PANEL

QUERIES_PER_TILE = 12
"""Maximum rows of an attention tile: neighbouring tokens times the heads that share a kv head."""


class PagePlaces(NamedTuple):
    """Where the new tokens of a batch are: in their sequences, and in the cache."""

    positions: Integers
    slots: Integers
    tables: Integers
    """Pages of each row, padded: [rows, pages]."""

    @classmethod
    def of(cls, rows: Sequence[Row], pages: int) -> PagePlaces:
        """Return the places of some rows; a block has ``pages`` pages of `PANEL` tokens."""
        positions = np.concatenate([np.arange(row.start, row.start + row.count) for row in rows])
        tables = _tables(rows, pages)
        row_of = np.repeat(np.arange(len(rows)), [row.count for row in rows])
        return cls(positions, tables[row_of, positions // PANEL] * PANEL + positions % PANEL, tables)


def _tables(rows: Sequence[Row], pages: int) -> Integers:
    longest = max(len(row.block_table) for row in rows)
    tables = np.zeros((len(rows), longest, pages), np.int64)
    for table, row in zip(tables, rows, strict=True):
        blocks = np.array(row.block_table)[:, None]
        table[: len(blocks)] = blocks * pages + np.arange(pages)
    return tables.reshape(len(rows), -1)


def tokens_per_tile(heads: int, kv_heads: int) -> int:
    """Return the number of tokens of an attention tile."""
    return max(1, QUERIES_PER_TILE * kv_heads // heads)


def tile_rows(heads: int, kv_heads: int) -> int:
    """Return the number of queries of an attention tile, as a multiple of 4."""
    return -(-heads // kv_heads * tokens_per_tile(heads, kv_heads) // 4) * 4


def tiles(rows: Sequence[Row], size: int) -> Integers:
    """Return the tiles of a batch, of ``size`` tokens at most: see `Batch.tiles`."""
    found, at = [], 0
    for index, row in enumerate(rows):
        found += [(at + i, min(size, row.count - i), index) for i in range(0, row.count, size)]
        at += row.count
    return np.array(found)
