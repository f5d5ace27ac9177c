"""Attention over a paged cache on the kernels, for models whose other operations are torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.attention import AttentionBatch, KVShape, Pattern
from fllm_backends.torch.fused.arrays import Integers, TileBuffers
from fllm_backends.torch.fused.attention import store_kernel
from fllm_backends.torch.fused.attention_tile import tile_kernel
from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.intrinsics import MAX_HALF
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.packing import Floats
from fllm_backends.torch.fused.padding import round_up
from fllm_backends.torch.fused.pages import PagePlaces, PageTables, tile_rows, tiles, tokens_per_tile
from fllm_backends.torch.fused.simd_attention import CacheType
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

MAX_GROWTH = 1.5
"""How many times the keys and values of a token may become by padding."""
PHASES = 2
"""Number of phases of a layer: store keys and values, and attend."""
CACHE_DTYPE = torch.float16
_NOTHING = np.empty((0, 1, 1), np.float32)


class _Heads(NamedTuple):
    """The constants of a layer."""

    heads: int
    kv_heads: int
    attention_scale: np.float32
    softcap: Floats
    """What scores are capped to, one number; 0 for no limit."""
    sinks: Floats
    """Score of each head for attending to nothing; no elements if the layer has none."""


class _Batch(NamedTuple):
    positions: Integers
    slots: Integers
    page_tables: Integers
    tiles: Integers


attend_tile, store_key_and_value = tile_kernel(CacheType.HALF), store_kernel(CacheType.HALF)


@kernel(fastmath=False)
def store(k: Any, v: Any, slots: Any, keys: Any, values: Any, team: Any, phase: Any) -> None:
    """Store [tokens, kv_heads, dim] keys and values in the cache: see `norm_rope_and_cache`."""
    per_piece = units_per_piece(len(k), team)
    pieces, completed = -(-len(k) // per_piece), 0
    while True:
        first = claim_piece(team, phase) * per_piece
        if first >= len(k):
            break
        completed += 1
        for t in range(first, min(first + per_piece, len(k))):
            page, place = slots[t] // PANEL, slots[t] % PANEL
            for h in range(k.shape[1]):
                store_key_and_value(k[t, h], v[t, h], keys[page, h], values[page, h], place)
    finish_phase(team, phase, completed, pieces)


@kernel(fastmath=False)
def attend(
    team: Any,
    q: Any,
    k: Any,
    v: Any,
    batch: Any,
    heads: Any,
    window: Any,
    keys: Any,
    values: Any,
    s: Any,
    out: Any,
) -> None:
    """Store new keys and values; attend with [tokens, heads * dim] queries to [tokens, heads, value_dim].

    A layer that shares the cache of another has no new ones.
    """
    store(k, v, batch.slots, keys, values, team, 0)
    pieces, completed = len(batch.tiles) * heads.kv_heads, 0
    shared = heads.heads // heads.kv_heads
    while True:
        index = claim_piece(team, 1)
        if index >= pieces:
            break
        completed += 1
        # The last tiles of a prompt attend to the most keys, so they come first.
        tile = batch.tiles[len(batch.tiles) - 1 - index // heads.kv_heads]
        head = index % heads.kv_heads
        attend_tile(q, batch, heads, window, keys, values, s, team.thread, tile, head)
        for row in range(tile[1] * shared):
            weighted = s.weighted[team.thread, row]
            place = out[tile[0] + row // shared, head * shared + row % shared]
            for i in range(out.shape[2]):
                place[i] = weighted[i]
    finish_phase(team, 1, completed, pieces)


class KernelAttention:
    """Attends over a cache of float16 in pages, whose layout is that of `FusedLM`."""

    cache_dtype = CACHE_DTYPE
    block_multiple = PANEL

    def __init__(self, threads: KernelThreads) -> None:
        self._threads = threads
        self._batches: dict[tuple[int, int], _Batch] = {}
        self._tables: dict[int, PageTables] = {}
        """By the size of a block."""
        self._scratch: dict[tuple[int, int, int], TileBuffers] = {}
        self._layers: dict[int, _Heads] = {}

    def support(self, shapes: Sequence[KVShape], patterns: Sequence[Pattern]) -> bool:
        """Return whether the kernels can attend in all layers; without any, there is nothing to do."""
        stored, padded = (sum(each.elements for each in part) for part in (shapes, self.padded(shapes)))
        return 0 < padded <= MAX_GROWTH * stored and not any(each.window and each.chunk for each in patterns)

    def padded(self, shapes: Sequence[KVShape]) -> tuple[KVShape, ...]:
        """Return what the layers of the kernels' cache store of a token."""
        return tuple(
            KVShape(each.kv_heads, round_up(each.key_dim), round_up(each.value_dim)) for each in shapes
        )

    def compile(self) -> None:
        """Compile the kernel, or load what an earlier start has compiled."""
        row = Row(
            token_ids=[0],
            prompt_length=1,
            start=0,
            count=1,
            block_table=[0],
            sampling=SamplingParams(max_tokens=1),
            seed=0,
            sample=True,
        )
        batch = AttentionBatch([row], PANEL, torch.device("cpu"))
        token, cache = torch.zeros(1, 1, GROUP), torch.zeros(1, PANEL, 1, GROUP, dtype=CACHE_DTYPE)
        self._attend(_heads(Pattern(), 1, 1, GROUP), 0, token, (token, token), (cache, cache), batch)

    def start(self) -> None:
        """Begin a pass over another batch."""
        self._batches = {}

    def attend(
        self,
        layer: int,
        pattern: Pattern,
        query: Tensor,
        new: tuple[Tensor, Tensor] | None,
        cache: tuple[Tensor, Tensor],
        batch: AttentionBatch,
    ) -> Tensor:
        """Attend with [tokens, heads, key_dim] queries; return [tokens, heads, value_dim] floats.

        ``new`` are [tokens, kv_heads, dim] keys and values, which are stored before. A shared layer has none.
        ``cache`` is that of the layer, see `KVCache.layer`; the padding of a value is returned with it.
        """
        heads = self._layers.get(layer)
        if heads is None:
            heads = _heads(pattern, query.shape[1], cache[0].shape[2], query.shape[2])
            self._layers[layer] = heads
        return self._attend(heads, pattern.window or -(pattern.chunk or 0), query, new, cache, batch)

    def _attend(
        self,
        heads: _Heads,
        window: int,
        query: Tensor,
        new: tuple[Tensor, Tensor] | None,
        cache: tuple[Tensor, Tensor],
        batch: AttentionBatch,
    ) -> Tensor:
        (key_store, value_store), (tokens, count) = cache, query.shape[:2]
        kv_heads, key_dim, value_dim = key_store.shape[2], key_store.shape[3], value_store.shape[3]
        if query.shape[2] != key_dim:
            query = F.pad(query, (0, key_dim - query.shape[2]))
        places = self._places(batch, key_store.shape[1], tokens_per_tile(count, kv_heads))
        key, value = (_array(part) for part in new) if new else (_NOTHING, _NOTHING)
        out = np.empty((tokens, count, value_dim), np.float32)
        self._threads.run(
            attend,
            PHASES,
            _array(query).reshape(tokens, -1),
            key,
            value,
            places,
            heads,
            window,
            _bits(key_store, kv_heads, key_dim, PANEL),
            _bits(value_store, kv_heads, PANEL, value_dim),
            self._buffers(tile_rows(count, kv_heads), key_dim, value_dim),
            out,
        )
        return torch.from_numpy(out)

    def write(self, cache: tuple[Tensor, Tensor], slots: Tensor, new: tuple[Tensor, Tensor]) -> None:
        """Store [tokens, kv_heads, dim] keys and values at [tokens] slots of a layer's cache."""
        for part, values in zip(_tensors(cache), new, strict=True):
            finite = values.nan_to_num(MAX_HALF).clamp(-MAX_HALF, MAX_HALF)
            part[slots // PANEL, :, slots % PANEL, : values.shape[2]] = finite.to(part.dtype)

    def read(self, cache: tuple[Tensor, Tensor], slots: Tensor, shape: KVShape) -> list[Tensor]:
        """Return the keys and values at [tokens] slots of a layer's cache: [tokens, kv_heads, dim] floats."""
        parts = zip(_tensors(cache), (shape.key_dim, shape.value_dim), strict=True)
        return [part[slots // PANEL, :, slots % PANEL, :dim].float() for part, dim in parts]

    def _places(self, batch: AttentionBatch, block_size: int, size: int) -> _Batch:
        """Return the batch for tiles of ``size`` tokens."""
        key = block_size, size
        if key not in self._batches:
            tables = self._tables.setdefault(block_size, PageTables(block_size // PANEL))
            places = PagePlaces.of(batch.rows, tables)
            self._batches[key] = _Batch(*places, tiles(batch.rows, size))
        return self._batches[key]

    def _buffers(self, rows: int, key_dim: int, value_dim: int) -> TileBuffers:
        key = rows, key_dim, value_dim
        if key not in self._scratch:
            self._scratch[key] = TileBuffers.allocate(
                self._threads.count, rows, (key_dim, value_dim), CacheType.HALF
            )
        return self._scratch[key]


def _tensors(cache: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return views of a layer's cache: [pages, kv_heads, PANEL, dim] each."""
    keys, values = cache
    kv_heads, key_dim, value_dim = keys.shape[2], keys.shape[3], values.shape[3]
    pages = keys.view(-1, kv_heads, key_dim, PANEL).transpose(2, 3)
    return pages, values.view(-1, kv_heads, PANEL, value_dim)


def _heads(pattern: Pattern, heads: int, kv_heads: int, key_dim: int) -> _Heads:
    sinks = np.empty(0, np.float32) if pattern.sinks is None else _array(pattern.sinks)
    scale = key_dim**-0.5 if pattern.scale is None else pattern.scale
    return _Heads(heads, kv_heads, np.float32(scale), np.full(1, pattern.softcap or 0, np.float32), sinks)


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().contiguous().numpy()
    return array


def _bits(part: Tensor, *shape: int) -> NDArray[np.uint16]:
    """Return the float16 bits of a layer's keys or values in pages: [pages, *shape]."""
    return part.numpy().view(np.uint16).reshape(-1, *shape)
