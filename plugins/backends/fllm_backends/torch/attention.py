"""Attention over a paged cache of keys and values, in torch operations.

The new tokens of all rows form one flat batch. Rows with one new token attend together, in groups of similar
length. A row with more new tokens attends alone. Block tables say which parts of the cache a row gathers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fllm.batching.runner import Row


class KVCache:
    """Keys and values of all layers in blocks: [layers, blocks, block_size, kv_heads, head_dim] each.

    They are zeroed, because rows of different lengths that attend together read slots that were never
    written; their scores are masked.
    """

    def __init__(
        self, layers: int, blocks: int, block_size: int, kv_heads: int, head_dim: int, like: Tensor
    ) -> None:
        shape = (layers, blocks, block_size, kv_heads, head_dim)
        self.block_size = block_size
        self._keys = _zeros(shape, like)
        self._values = _zeros(shape, like)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of a layer: [blocks, block_size, kv_heads, head_dim] each."""
        return self._keys[index], self._values[index]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys and values of all layers on a CPU: [layers, slots, kv_heads, head_dim] each."""
        return self._keys.flatten(1, 2).numpy(), self._values.flatten(1, 2).numpy()

    def write(self, index: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store [tokens, kv_heads, head_dim] at [tokens] slots, which are block * block_size + offset."""
        self._keys[index].flatten(0, 1).index_copy_(0, slots, keys)
        self._values[index].flatten(0, 1).index_copy_(0, slots, values)


@dataclass(frozen=True)
class _DecodeRows:
    """Rows with one new token each."""

    tokens: Tensor
    """Positions of the new tokens in the batch: [rows]."""
    tables: Tensor
    """Block tables, padded with arbitrary blocks: [rows, blocks]."""
    lengths: Tensor
    """Number of tokens that each row attends to: [rows]."""
    longest: int
    uniform: bool
    """Whether all rows are as long as the longest."""

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
        """Attend with [rows, heads, head_dim] queries; return the same shape.

        The queries that share a kv head are passed as a sequence.
        """
        key = _gather(keys, self.tables, self.longest)
        value = _gather(values, self.tables, self.longest)
        grouped = query.view(len(query), key.shape[1], -1, query.shape[2])
        mask = None
        if not self.uniform or (window and window < self.longest):
            mask = self._mask(window)
        return F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask).flatten(1, 2)

    def _mask(self, window: int | None) -> Tensor:
        places = torch.arange(self.longest, device=self.lengths.device)
        ends = self.lengths[:, None]
        seen = places < ends
        if window:
            seen &= places >= ends - window
        return seen[:, None, None]


@dataclass(frozen=True)
class _PrefillRow:
    """One row with several new tokens."""

    tokens: slice
    """Positions of the new tokens in the batch."""
    table: Tensor
    """Block table: [1, blocks]."""
    start: int

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
        """Attend with [count, heads, head_dim] queries; return the same shape."""
        count, heads = query.shape[:2]
        length = self.start + count
        share = heads // keys.shape[2]
        key = _gather(keys, self.table, length).repeat_interleave(share, 1)
        value = _gather(values, self.table, length).repeat_interleave(share, 1)
        plain = self.start == 0 and not (window and window < length)
        mask = None if plain else self._mask(count, window)
        heads_first = query.transpose(0, 1)[None]
        seen = F.scaled_dot_product_attention(heads_first, key, value, mask, is_causal=plain)
        return seen[0].transpose(0, 1)

    def _mask(self, count: int, window: int | None) -> Tensor:
        places = torch.arange(self.start + count, device=self.table.device)
        ends = places[self.start :, None]
        seen = places <= ends
        if window:
            seen &= places > ends - window
        return seen


class AttentionBatch:
    """The attention pattern of one batch. It is built once and used by every layer."""

    def __init__(self, rows: Sequence[Row], block_size: int, device: torch.device) -> None:
        self.rows = rows
        self._block_size = block_size
        self._device = device

    @cached_property
    def positions(self) -> Tensor:
        """Positions of the new tokens in their sequences: [tokens]."""
        return self._tensor([p for row in self.rows for p in range(row.start, row.start + row.count)])

    @cached_property
    def slots(self) -> Tensor:
        """Cache slots of the new tokens: [tokens]."""
        size = self._block_size
        return self._tensor(
            [
                row.block_table[p // size] * size + p % size
                for row in self.rows
                for p in range(row.start, row.start + row.count)
            ]
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
        """Attend with [tokens, heads, head_dim] queries, each row over its own blocks.

        Return the same shape.
        """
        result = torch.empty_like(query)
        for chunk in self._prefill_rows:
            result[chunk.tokens] = chunk.attend(query[chunk.tokens], keys, values, window)
        for decodes in self._decode_groups:
            result[decodes.tokens] = decodes.attend(query[decodes.tokens], keys, values, window)
        return result

    @cached_property
    def _offsets(self) -> list[tuple[int, Row]]:
        placed, at = [], 0
        for row in self.rows:
            placed.append((at, row))
            at += row.count
        return placed

    @cached_property
    def _prefill_rows(self) -> list[_PrefillRow]:
        return [
            _PrefillRow(slice(at, at + row.count), self._table(row)[None], row.start)
            for at, row in self._offsets
            if row.count > 1
        ]

    @cached_property
    def _decode_groups(self) -> list[_DecodeRows]:
        groups: dict[int, list[tuple[int, Row]]] = {}
        for at, row in self._offsets:
            if row.count == 1:
                groups.setdefault(row.start.bit_length(), []).append(
                    (at, row)
                )  # lengths in a group differ by a factor of two at most
        return [self._group(group) for group in groups.values()]

    def _group(self, group: list[tuple[int, Row]]) -> _DecodeRows:
        lengths = [row.start + 1 for _, row in group]
        tables = [self._table(row) for _, row in group]
        return _DecodeRows(
            tokens=self._tensor([at for at, _ in group]),
            tables=torch.nn.utils.rnn.pad_sequence(tables, batch_first=True),
            lengths=self._tensor(lengths),
            longest=max(lengths),
            uniform=min(lengths) == max(lengths),
        )

    def _table(self, row: Row) -> Tensor:
        blocks = -(-(row.start + row.count) // self._block_size)
        return self._tensor(row.block_table[:blocks])

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, device=self._device)


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return zeros that take memory on a CPU only when they are written. torch writes its own at once."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    pages = np.zeros(math.prod(shape) * like.element_size(), dtype=np.uint8)
    return torch.from_numpy(pages).view(like.dtype).view(shape)


def _gather(store: Tensor, tables: Tensor, length: int) -> Tensor:
    """Return the first ``length`` tokens of each row's blocks: [rows, kv_heads, length, head_dim]."""
    blocks = store.index_select(0, tables.flatten())
    return blocks.view(len(tables), -1, *store.shape[2:])[:, :length].transpose(1, 2)
