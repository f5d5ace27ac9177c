"""Rotary embeddings, the KV cache and attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.intrinsics import address, half_bits
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import PLANES_8_BIT
from fllm_backends.torch.fused.norms import normalize
from fllm_backends.torch.fused.simd_kernels import SCALE_BYTES
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import claim_piece, finish_phase, units_per_piece

EIGHT_ROWS_FIT = TARGET.width == 16
"""Whether there are enough registers for the sums of eight rows."""

scores_8, scores_4 = simd_kernels.attention_scores(TARGET, 8), simd_kernels.attention_scores(TARGET, 4)
weighted_values_4, softmax = simd_kernels.weighted_values(TARGET, 4), simd_kernels.softmax(TARGET)
soft_cap = simd_kernels.soft_cap(TARGET)
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

    Keys are [pages, kv_heads, head_dim, PANEL] and values [pages, kv_heads, PANEL, head_dim], both float16.
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


@kernel(fastmath=False)
def norm_rope_and_cache_token(
    heads: Any, t: Any, batch: Any, shape: Any, w: Any, layer: Any, keys: Any, values: Any
) -> None:
    """Do the same for one token.

    Each head is normalized on its own (Qwen3), or all queries together, and all keys (OLMo 2).
    """
    dim, rope = keys.shape[2], w.rope[layer]
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
        for i in range(dim):
            keys[page, h, i, place] = half_bits(heads[key + i])
            values[page, h, place, i] = half_bits(heads[value + i])


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
        attend_tile(qkv, batch, shape, window, keys, values, s, team.thread, tile, head)
        quantize_tile(shape, s, team.thread, tile, head)
    finish_phase(team, phase, completed, pieces)


@kernel(fastmath=False)
def score_pages(
    queries: Any, padded: Any, head: Any, table: Any, begin: Any, end: Any, keys: Any, scores: Any
) -> None:
    """Multiply queries with the keys at positions from ``begin`` to ``end``, which are whole pages."""
    heads, dim, width = keys.shape[1], keys.shape[2], scores.shape[1]
    page = dim * PANEL * 2
    for p in range(begin, end, PANEL):
        at = address(keys) + (table[p // PANEL] * heads + head) * page
        row = 0
        while row < padded:
            arguments = (
                address(queries) + row * dim * 4,
                dim,
                at,
                address(scores) + (row * width + p - begin) * 4,
                width * 4,
            )
            if EIGHT_ROWS_FIT and padded - row >= 8:
                scores_8(arguments)
                row += 8
            else:
                scores_4(arguments)
                row += 4


@kernel(fastmath=False)
def first_attended(position: Any, window: Any) -> Any:
    """Return the first position that a token attends to: see `attend_tile`."""
    if window > 0:
        return max(0, position + 1 - window)
    return position // -window * -window if window < 0 else 0


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

    The results are the first rows of ``s.weighted[thread]``. A ``window`` below 0 is the size of chunks: a
    token attends only to those of its own.
    """
    dim, value_dim = keys.shape[2], values.shape[3]
    shared = shape.heads // shape.kv_heads
    first, count, table = tile[0], tile[1], batch.page_tables[tile[2]]
    rows = count * shared
    padded = -(-rows // 4) * 4
    queries, scores, weighted, sums = (
        s.queries[thread],
        s.scores[thread],
        s.weighted[thread],
        s.softmax_sums[thread],
    )
    for t in range(count):
        for j in range(shared):
            at = (head * shared + j) * dim
            for i in range(dim):
                queries[t * shared + j, i] = qkv[first + t, at + i] * shape.attention_scale
    begin = first_attended(batch.positions[first], window) // PANEL * PANEL
    end = -(-(batch.positions[first + count - 1] + 1) // PANEL) * PANEL
    width = scores.shape[1]
    page = value_dim * PANEL * 2
    score_pages(queries, padded, head, table, begin, end, keys, scores)
    for row in range(rows):
        position = batch.positions[first + row // shared]
        columns = end - begin
        if shape.softcap[0] > single(0):
            soft_cap((address(scores[row]), columns, address(shape.softcap)))
        if window != 0:
            scores[row, : first_attended(position, window) - begin] = -np.inf
        scores[row, position + 1 - begin : columns] = -np.inf
        if len(shape.sinks):
            scores[row, columns] = shape.sinks[head * shared + row % shared]
            scores[row, columns + 1 : columns + PANEL] = -np.inf
            columns += PANEL
        softmax((address(scores[row]), columns, address(sums) + 4 * row))
    weighted[:padded] = single(0)
    for p in range(begin, end, PANEL):
        at = address(values) + (table[p // PANEL] * shape.kv_heads + head) * page
        for row in range(0, padded, 4):
            weighted_values_4(
                (
                    address(scores) + (row * width + p - begin) * 4,
                    width * 4,
                    at,
                    value_dim,
                    address(weighted) + row * value_dim * 4,
                )
            )
    for row in range(rows):
        inverse = single(1) / sums[row]
        for i in range(value_dim):
            weighted[row, i] *= inverse


@kernel(fastmath=False)
def quantize_tile(shape: Any, s: Any, thread: Any, tile: Any, head: Any) -> None:
    """Store the results of a tile, quantized for the product with the output projection."""
    weighted = s.weighted[thread]
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
