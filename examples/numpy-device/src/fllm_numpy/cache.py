"""The KV cache in blocks, and attention to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fllm.batching import Row
from fllm_numpy.gguf_file import Array


class KVCache:
    """Keys and values of all layers; position ``p`` of a row lies in ``block_table[p // block_size]``."""

    def __init__(self, layers: int, blocks: int, block_size: int, kv_heads: int, head_dim: int) -> None:
        shape = (layers, blocks, block_size, kv_heads, head_dim)
        self.block_size = block_size
        self._keys = np.zeros(shape, np.float32)  # pages that nobody writes take no memory
        self._values = np.zeros(shape, np.float32)

    def write(self, layer: int, rows: Sequence[Row], keys: Array, values: Array) -> None:
        """Store the new tokens of all rows: [tokens, kv_heads, head_dim] each."""
        at = 0
        for row in rows:
            places = np.arange(row.start, row.start + row.count)
            blocks = np.asarray(row.block_table)[places // self.block_size]
            self._keys[layer, blocks, places % self.block_size] = keys[at : at + row.count]
            self._values[layer, blocks, places % self.block_size] = values[at : at + row.count]
            at += row.count

    def attend(self, layer: int, row: Row, query: Array) -> Array:
        """[count, heads, head_dim] of one row to the same, each token over itself and those before it."""
        count, heads, head_dim = query.shape
        keys, values = self._read(self._keys[layer], row), self._read(self._values[layer], row)
        grouped = query.reshape(count, len(keys), -1, head_dim).transpose(1, 2, 0, 3)
        scores = grouped @ keys[:, None].swapaxes(2, 3) / np.float32(np.sqrt(head_dim))
        places = np.arange(row.start + count)
        scores[..., places > places[row.start :, None]] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed: Array = (weights / weights.sum(-1, keepdims=True)) @ values[:, None]
        return mixed.transpose(2, 0, 1, 3).reshape(count, heads, head_dim)

    def _read(self, store: Array, row: Row) -> Array:
        """All that a row sees, its new tokens included: [kv_heads, tokens, head_dim]."""
        length = row.start + row.count
        table = np.asarray(row.block_table)[: -(-length // self.block_size)]
        found: Array = store[table].reshape(-1, *store.shape[2:])
        return found[:length].swapaxes(0, 1)
