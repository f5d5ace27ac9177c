"""Rotary embeddings, the KV cache and attention."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.attention_tile import page_dim, tile_kernel
from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.intrinsics import address, bfloat_bits, half_bits
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import PLANES_8_BIT
from fllm_backends.torch.fused.norms import normalize
from fllm_backends.torch.fused.simd_attention import CacheType
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

CACHE = int(CacheType.BFLOAT if TARGET.bfloat else CacheType.HALF)
"""The type of the cache of a `FusedLM`."""

quantize_8_bit = simd_kernels.quantize_groups(TARGET, PLANES_8_BIT)

single = np.float32


@kernel(fastmath=False)
def rotate(x: Any, cosine: Any, sine: Any) -> None:
    """Rotate the first dimensions of one head by its position, in place."""
    half = len(cosine)
    for i in range(half):
        first, second = x[i], x[i + half]
        x[i] = first * cosine[i] - second * sine[i]
        x[i + half] = second * cosine[i] + first * sine[i]


@kernel(fastmath=False)
def norm_rope_and_cache(
    qkv: Any, batch: Any, shape: Any, w: Any, layer: Any, keys: Any, values: Any, team: Any, phase: Any
) -> None:
    """Normalize the heads of all tokens, rotate them, and store keys and values in the cache.

    Keys and values are [pages, kv_heads, ...] in the layout of `CACHE`.
    """
    per_piece = units_per_piece(len(qkv), team)
    pieces, completed = -(-len(qkv) // per_piece), 0
    while True:
        first = claim_piece(team, phase) * per_piece
        if first >= len(qkv):
            break
        completed += 1
        for t in range(first, min(first + per_piece, len(qkv))):
            norm_rope_and_cache_token(qkv[t], t, batch, shape, w, layer, keys, values)
    finish_phase(team, phase, completed, pieces)


@cache
def store_kernel(kind: int) -> Any:
    """Return the function that stores the key and the value of a token in pages of a `CacheType`."""
    bfloat = int(kind) == CacheType.BFLOAT

    @kernel(fastmath=False)
    def store_key_and_value(key: Any, value: Any, keys: Any, values: Any, place: Any) -> None:
        for i in range(len(key)):
            if bfloat:
                keys[i // 2, 2 * place + i % 2] = bfloat_bits(key[i])
            else:
                keys[i, place] = half_bits(key[i])
        for i in range(len(value)):
            if bfloat:
                values[place // 2, 2 * i + place % 2] = bfloat_bits(value[i])
            else:
                values[place, i] = half_bits(value[i])

    return store_key_and_value


store_key_and_value = store_kernel(CACHE)


@kernel(fastmath=False)
def norm_rope_and_cache_token(
    heads: Any, t: Any, batch: Any, shape: Any, w: Any, layer: Any, keys: Any, values: Any
) -> None:
    """Do the same for one token.

    Each head is normalized on its own (Qwen3), or all queries together, and all keys (OLMo 2).
    """
    dim, rope = page_dim(keys), w.rope[layer]
    page, place = batch.slots[t] // PANEL, batch.slots[t] % PANEL
    if w.q_norm.shape[1] > dim or w.k_norm.shape[1] > dim:
        first, last = shape.heads * dim, (shape.heads + shape.kv_heads) * dim
        normalize(heads[:first], w.q_norm[layer], shape.head_eps, heads[:first])
        normalize(heads[first:last], w.k_norm[layer], shape.head_eps, heads[first:last])
    for h in range(shape.heads + shape.kv_heads):
        x = heads[h * dim : (h + 1) * dim]
        if w.q_norm.shape[1] == dim and w.k_norm.shape[1] == dim:
            normalize(x, w.q_norm[layer] if h < shape.heads else w.k_norm[layer], shape.head_eps, x)
        if rope >= 0:
            rotate(x, batch.cosine[rope, t], batch.sine[rope, t])
    for h in range(shape.kv_heads):
        key = (shape.heads + h) * dim
        value = key + shape.kv_heads * dim
        store_key_and_value(
            heads[key : key + dim], heads[value : value + dim], keys[page, h], values[page, h], place
        )


@kernel(fastmath=False)
def attend(
    qkv: Any, batch: Any, shape: Any, window: Any, keys: Any, values: Any, s: Any, team: Any, phase: Any
) -> None:
    """Attend with all heads of all new tokens.

    A tile is neighbouring tokens and the heads that share a kv head.
    """
    pieces, completed = len(batch.tiles) * shape.kv_heads, 0
    while True:
        index = claim_piece(team, phase)
        if index >= pieces:
            break
        completed += 1
        # The last tiles of a prompt attend to the most keys, so they come first.
        tile = batch.tiles[len(batch.tiles) - 1 - index // shape.kv_heads]
        head = index % shape.kv_heads
        attend_tile(qkv, batch, shape, window, keys, values, s.tile, team.thread, tile, head)
        quantize_tile(shape, s, team.thread, tile, head)
    finish_phase(team, phase, completed, pieces)


attend_tile = tile_kernel(CACHE)


@kernel(fastmath=False)
def quantize_tile(shape: Any, s: Any, thread: Any, tile: Any, head: Any) -> None:
    """Store the results of a tile, quantized for the product with the output projection."""
    weighted = s.tile.weighted[thread]
    shared, groups = shape.heads // shape.kv_heads, weighted.shape[1] // GROUP
    for row in range(tile[1] * shared):
        t, at = tile[0] + row // shared, (head * shared + row % shared) * groups
        quantize_8_bit(
            (
                address(weighted[row]),
                groups,
                address(s.attention[t]) + at * GROUP,
                address(s.attention_scales[t]) + at * SCALE_BYTES,
            )
        )
