"""Rotary embeddings, the KV cache and attention."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types

from fllm_backends.torch.fused import simd_attention, simd_kernels
from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.intrinsics import address, bfloat_bits, half_bits
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import PLANES_8_BIT
from fllm_backends.torch.fused.norms import normalize
from fllm_backends.torch.fused.simd_attention import (
    BLOCK,
    PAGES,
    STATE,
    CacheType,
    block_scores,
    block_values,
    block_weights,
    pages_at_once,
)
from fllm_backends.torch.fused.simd_builder import SimdBuilder, intrinsic, unpack_integers
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

EIGHT_ROWS_FIT = TARGET.width == 16
"""Whether there are enough registers for the sums of eight rows."""
PAGES_AT_ONCE = pages_at_once(TARGET)
CACHE = int(CacheType.BFLOAT if TARGET.bfloat else CacheType.HALF)
"""The type of the cache of a `FusedLM`."""
PARTS = (block_scores, block_values, block_weights)
SCORES, VALUES, WEIGHTS = range(len(PARTS))
LOWEST = np.float32(-1e30)
"""Stands for the largest of no scores. It is finite, so that its difference to itself is 0."""

soft_cap = simd_attention.soft_cap(TARGET)
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


@kernel(fastmath=False)
def first_attended(position: Any, window: Any) -> Any:
    """Return the first position that a token attends to: see `attend_tile`."""
    if window > 0:
        return max(0, position + 1 - window)
    return position // -window * -window if window < 0 else 0


@intrinsic(prefer_literal=True)
def attention_part(typingctx: Any, part: Any, rows: Any, kind: Any, arguments: Any) -> Any:  # noqa: ARG001
    """Run one of `PARTS` for a constant number of rows and a constant `CacheType`."""
    emit = PARTS[part.literal_value](TARGET, rows.literal_value, CacheType(kind.literal_value))

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit(SimdBuilder(builder, TARGET.width), *unpack_integers(context, builder, signature, values))
        return context.get_dummy_value()

    return types.void(part, rows, kind, arguments), codegen


@cache
def tile_kernel(kind: int) -> Any:
    """Return `attend_tile` for a `CacheType`; it is compiled when it is used."""
    kind = int(kind)  # a constant of the kernels
    bfloat = kind == CacheType.BFLOAT

    @kernel(fastmath=False)
    def fill_queries(qkv: Any, shape: Any, tile: Any, head: Any, dim: Any, queries: Any) -> None:
        shared = shape.heads // shape.kv_heads
        for t in range(tile[1]):
            for j in range(shared):
                at = (head * shared + j) * dim
                for i in range(dim):
                    query = qkv[tile[0] + t, at + i] * shape.attention_scale
                    queries[t * shared + j, i] = bfloat_bits(query) if bfloat else query

    @kernel(fastmath=False)
    def score_block(padded: Any, dim: Any, count: Any, s: Any, thread: Any) -> None:
        queries, pages, scores = (
            address(s.queries[thread]),
            address(s.pages[thread]),
            address(s.scores[thread]),
        )
        stride = s.queries.shape[2] * s.queries.itemsize
        row = 0
        while row < padded:
            arguments = (queries + row * stride, dim, pages, count, scores + row * BLOCK * 4, BLOCK * 4)
            if EIGHT_ROWS_FIT and padded - row >= 8:
                attention_part(SCORES, 8, kind, arguments)
                row += 8
            else:
                attention_part(SCORES, 4, kind, arguments)
                row += 4

    @kernel(fastmath=False)
    def add_values(padded: Any, dim: Any, count: Any, s: Any, thread: Any) -> None:
        weights, pages, states = (
            address(s.weights[thread]),
            address(s.pages[thread, 1]),
            address(s.states[thread]),
        )
        out, stride = address(s.weighted[thread]), BLOCK * s.weights.itemsize
        row = 0
        while row < padded:
            arguments = (
                weights + row * stride,
                stride,
                pages,
                count,
                dim,
                states + row * STATE * 4,
                out + row * dim * 4,
            )
            if EIGHT_ROWS_FIT and padded - row >= 8:
                attention_part(VALUES, 8, kind, arguments)
                row += 8
            else:
                attention_part(VALUES, 4, kind, arguments)
                row += 4

    @kernel(fastmath=False)
    def attend_tile(
        qkv: Any,
        batch: Any,
        shape: Any,
        window: Any,
        keys: Any,
        values: Any,
        s: Any,
        thread: Any,
        tile: Any,
        head: Any,
    ) -> None:
        """Compute softmax(queries @ keys * scale) @ values for some tokens of one row and one kv head.

        The results are the first rows of ``s.weighted[thread]``. A ``window`` below 0 is the size of chunks:
        a token attends only to those of its own. The keys are read in blocks of `BLOCK`; what a row does not
        attend to in a block changes no bit of its result.
        """
        dim, value_dim = page_dim(keys), page_dim(values)
        shared = shape.heads // shape.kv_heads
        first, rows, table = tile[0], tile[1] * shared, batch.page_tables[tile[2]]
        padded = -(-rows // 4) * 4
        scores, states = s.scores[thread], s.states[thread]
        scores_at, states_at, weights_at = address(scores), address(states), address(s.weights[thread])
        weight_stride = BLOCK * s.weights.itemsize
        fill_queries(qkv, shape, tile, head, dim, s.queries[thread])
        s.weighted[thread, :padded] = single(0)
        for row in range(rows):
            states[row, 0], states[row, 1] = LOWEST, single(0)
            if len(shape.sinks):
                states[row, 0], states[row, 1] = shape.sinks[head * shared + row % shared], single(1)
        begin = first_attended(batch.positions[first], window) // BLOCK * BLOCK
        end = batch.positions[first + tile[1] - 1] // PANEL * PANEL + PANEL
        for start in range(begin, end, BLOCK):
            count = min(PAGES, (end - start) // PANEL)
            place_pages(table, start, end, head, keys, s.pages[thread, 0])
            place_pages(table, start, end, head, values, s.pages[thread, 1])
            columns = -(-count // PAGES_AT_ONCE) * PAGES_AT_ONCE * PANEL
            score_block(padded, dim, count, s, thread)
            if shape.softcap[0] > single(0):
                for row in range(rows):
                    soft_cap((scores_at + row * BLOCK * 4, columns, address(shape.softcap)))
            for t in range(tile[1]):
                position = batch.positions[first + t]
                low = first_attended(position, window) - start if window != 0 else 0
                if low > 0 or position + 1 - start < columns:
                    for row in range(t * shared, t * shared + shared):
                        scores[row, : max(0, low)] = -np.inf
                        scores[row, max(0, position + 1 - start) : columns] = -np.inf
            for row in range(rows):
                arguments = (
                    scores_at + row * BLOCK * 4,
                    columns,
                    states_at + row * STATE * 4,
                    weights_at + row * weight_stride,
                )
                attention_part(WEIGHTS, 1, kind, arguments)
            add_values(padded, value_dim, count, s, thread)
        for row in range(rows):
            inverse = single(1) / states[row, 1]
            for i in range(value_dim):
                s.weighted[thread, row, i] *= inverse

    return attend_tile


@kernel(fastmath=False)
def page_dim(part: Any) -> Any:
    """Return the dimension of a head in a cache whose pages have `PANEL` tokens."""
    return part.shape[2] * part.shape[3] // PANEL


@kernel(fastmath=False)
def place_pages(table: Any, start: Any, end: Any, head: Any, part: Any, pages: Any) -> None:
    """Write the addresses of a block's pages, and of those to prefetch after them; the last one repeats."""
    page = part.shape[2] * part.shape[3] * 2
    for p in range(len(pages)):
        index = table[min(start // PANEL + p, end // PANEL - 1)]
        pages[p] = address(part) + (index * part.shape[1] + head) * page


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
