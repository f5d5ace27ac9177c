"""Attention over a paged cache on the Triton kernels, for models whose other operations are torch's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fllm_backends.torch.attention import AttentionBatch, KVShape, Pattern
from fllm_backends.torch.cuda.attention import attend, decode_programs
from fllm_backends.torch.cuda.batch import Batch, build_batch

_MAX_HEAD_BYTES = 512
"""Size of the largest head of which a tile of queries, keys and values fits into shared memory."""
_MAX_SHARED = 64
"""Number of heads with the same keys that a program holds at once."""


class TritonAttention:
    """Attends over a cache of the layout of `KVCache`. Where the kernels lack a feature, torch attends."""

    block_multiple = 1

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # this thread starts kernels there
        self.cache_dtype = dtype
        self._device = device
        self._programs = decode_programs(device)
        self._batch: Batch | None = None

    def support(self, shapes: Sequence[KVShape], patterns: Sequence[Pattern]) -> bool:
        """Return whether the kernels can attend in any layer."""
        return any(map(self._supports, shapes, patterns))

    def padded(self, shapes: Sequence[KVShape]) -> tuple[KVShape, ...]:
        """Return what the layers of the cache store of a token: the shapes themselves."""
        return tuple(shapes)

    def start(self) -> None:
        """Begin a pass over another batch."""
        self._batch = None

    def attend(
        self,
        layer: int,  # noqa: ARG002
        pattern: Pattern,
        query: Tensor,
        new: tuple[Tensor, Tensor] | None,
        cache: tuple[Tensor, Tensor],
        batch: AttentionBatch,
    ) -> Tensor:
        """Attend with [tokens, heads, key_dim] queries; return [tokens, heads, value_dim].

        ``new`` are [tokens, kv_heads, dim] keys and values, which are stored before. A shared layer has none.
        ``cache`` is that of the layer, see `KVCache.layer`.
        """
        keys, values = cache
        if new:
            self.write(cache, batch.slots, new)
        shape = KVShape(keys.shape[2], keys.shape[3], values.shape[3])
        if query.shape[1] > _MAX_SHARED * shape.kv_heads or not self._supports(shape, pattern):
            return batch.attend(query, keys, values, pattern)
        if self._batch is None:
            self._batch = self._send(batch, keys.shape[1])
        return attend(query.contiguous(), cache, self._batch, pattern.window, self._programs, pattern.scale)

    def write(self, cache: tuple[Tensor, Tensor], slots: Tensor, new: tuple[Tensor, Tensor]) -> None:
        """Store [tokens, kv_heads, dim] keys and values at [tokens] slots of a layer's cache."""
        for part, values in zip(cache, new, strict=True):
            part.flatten(0, 1).index_copy_(0, slots, values)

    def read(self, cache: tuple[Tensor, Tensor], slots: Tensor, shape: KVShape) -> list[Tensor]:  # noqa: ARG002
        """Return the keys and values at [tokens] slots of a layer's cache: [tokens, kv_heads, dim]."""
        return [part.flatten(0, 1)[slots] for part in cache]

    def _supports(self, shape: KVShape, pattern: Pattern) -> bool:
        return (
            shape.key_dim == shape.value_dim
            and shape.key_dim * self.cache_dtype.itemsize <= _MAX_HEAD_BYTES
            and pattern.chunk is None
            and pattern.softcap is None
            and pattern.sinks is None
        )

    def _send(self, batch: AttentionBatch, block_size: int) -> Batch:
        """Copy the batch to the device, in one piece; the kernels of attention read no token ids."""
        no_ids = np.zeros(sum(row.count for row in batch.rows), np.int32)
        host = build_batch(batch.rows, no_ids, block_size)
        packed = host.pack(pinned=self._device.type == "cuda").to(self._device, non_blocking=True)
        return host.view(packed)
