"""A KV cache in blocks, and attention over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fllm.batching import Row
from fllm_numpy.gguf_file import Array


class KVCache:
    """Keys and values of all layers. Position ``p`` of a row is in block ``block_table[p // block_size]``."""

    def __init__(self, layers: int, blocks: int, block_size: int, kv_heads: int, head_dim: int) -> None:
        shape = (layers, blocks, block_size, kv_heads, head_dim)
        self.block_size = block_size
        self._keys = np.zeros(shape, np.float32)  # pages that are never written take no memory
        self._values = np.zeros(shape, np.float32)

    def write(self, layer: int, rows: Sequence[Row], keys: Array, values: Array) -> None:
        """Store the keys and values of all new tokens, each [tokens, kv_heads, head_dim]."""
        start = 0
        for row in rows:
            positions = np.arange(row.start, row.start + row.count)
            blocks = np.asarray(row.block_table)[positions // self.block_size]
            self._keys[layer, blocks, positions % self.block_size] = keys[start : start + row.count]
            self._values[layer, blocks, positions % self.block_size] = values[start : start + row.count]
            start += row.count

    def attend(self, layer: int, row: Row, query: Array) -> Array:
        """Return causal attention of one row; query and result are [count, heads, head_dim]."""
        count, heads, head_dim = query.shape
        keys, values = self._read(self._keys[layer], row), self._read(self._values[layer], row)
        grouped = query.reshape(count, len(keys), -1, head_dim).transpose(1, 2, 0, 3)
        scores = grouped @ keys[:, None].swapaxes(2, 3) / np.float32(np.sqrt(head_dim))
        positions = np.arange(row.start + count)
        scores[..., positions > positions[row.start :, None]] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        attended: Array = (weights / weights.sum(-1, keepdims=True)) @ values[:, None]
        return attended.transpose(2, 0, 1, 3).reshape(count, heads, head_dim)

    def _read(self, store: Array, row: Row) -> Array:
        """Return what a row attends to, including its new tokens: [kv_heads, tokens, head_dim]."""
        length = row.start + row.count
        table = np.asarray(row.block_table)[: -(-length // self.block_size)]
        tokens: Array = store[table].reshape(-1, *store.shape[2:])
        return tokens[:length].swapaxes(0, 1)
