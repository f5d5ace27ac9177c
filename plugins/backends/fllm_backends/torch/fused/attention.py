"""Queries, keys and values: rotation, the cache, attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fllm_backends.torch.fused import simd_kernels
from fllm_backends.torch.fused.intrinsics import address, as_half
from fllm_backends.torch.fused.jit import kernel
from fllm_backends.torch.fused.matmul import COARSE
from fllm_backends.torch.fused.norms import normalize
from fllm_backends.torch.fused.packing import GROUP, PANEL
from fllm_backends.torch.fused.simd_kernels import SCALES
from fllm_backends.torch.fused.target import TARGET
from fllm_backends.torch.fused.thread_team import at_once, finish, take

TALL = TARGET.width == 16
"""There are registers for the sums of eight rows."""

score_8, score_4 = simd_kernels.score(TARGET, 8), simd_kernels.score(TARGET, 4)
mix_4, soften = simd_kernels.mix(TARGET, 4), simd_kernels.soften(TARGET)
round_coarse = simd_kernels.round_groups(TARGET, COARSE)

single = np.float32


@kernel(fast=False)
def rotate(x: Any, cosine: Any, sine: Any) -> None:
    """Rotate one head by its position."""
    half = len(cosine)
    for i in range(half):
        first, second = x[i], x[i + half]
        x[i] = first * cosine[i] - second * sine[i]
        x[i + half] = second * cosine[i] + first * sine[i]


@kernel(fast=False)
def place_heads(
    qkv: Any, batch: Any, shape: Any, w: Any, layer: Any, keys: Any, values: Any, team: Any, phase: Any
) -> None:
    """Normalize heads (Qwen3), rotate them, and store keys and values.

    Keys: [pages, kv_heads, head_dim, PANEL]; values: [pages, kv_heads, PANEL, head_dim]; float16.
    """
    many = at_once(len(qkv), team)
    pieces, mine = -(-len(qkv) // many), 0
    while True:
        first = take(team, phase) * many
        if first >= len(qkv):
            break
        mine += 1
        for t in range(first, min(first + many, len(qkv))):
            place_token(qkv[t], t, batch, shape, w, layer, keys, values)
    finish(team, phase, mine, pieces)


@kernel(fast=False)
def place_token(
    heads: Any, t: Any, batch: Any, shape: Any, w: Any, layer: Any, keys: Any, values: Any
) -> None:
    """The same for one token."""
    dim = keys.shape[2]
    page, place = batch.slots[t] // PANEL, batch.slots[t] % PANEL
    for h in range(shape.heads + shape.kv_heads):
        x = heads[h * dim : (h + 1) * dim]
        if w.q_norm.shape[1]:
            normalize(x, w.q_norm[layer] if h < shape.heads else w.k_norm[layer], shape.eps, x)
        if w.rotary[layer]:
            rotate(x, batch.cosine[t], batch.sine[t])
    for h in range(shape.kv_heads):
        key = (shape.heads + h) * dim
        value = key + shape.kv_heads * dim
        for i in range(dim):
            keys[page, h, i, place] = as_half(heads[key + i])
            values[page, h, place, i] = as_half(heads[value + i])


@kernel(fast=False)
def attend(
    qkv: Any, batch: Any, shape: Any, window: Any, keys: Any, values: Any, s: Any, team: Any, phase: Any
) -> None:
    """All heads of all new tokens, in tiles of neighbouring tokens and the heads that share keys."""
    pieces, mine = len(batch.tiles) * shape.kv_heads, 0
    while True:
        turn = take(team, phase)
        if turn >= pieces:
            break
        mine += 1
        # The last tiles of a prompt see the most keys: they come first.
        tile = batch.tiles[len(batch.tiles) - 1 - turn // shape.kv_heads]
        attend_tile(qkv, batch, shape, window, keys, values, s, team.thread, tile, turn % shape.kv_heads)
    finish(team, phase, mine, pieces)


@kernel(fast=False)
def score_pages(
    queries: Any, padded: Any, head: Any, table: Any, begin: Any, end: Any, keys: Any, scores: Any
) -> None:
    """Queries times the keys at positions from ``begin`` to ``end``, whole pages."""
    heads, dim, width = keys.shape[1], keys.shape[2], scores.shape[1]
    page = dim * PANEL * 2
    for p in range(begin, end, PANEL):
        at = address(keys) + (table[p // PANEL] * heads + head) * page
        row = 0
        while row < padded:
            here = (
                address(queries) + row * dim * 4,
                dim,
                at,
                address(scores) + (row * width + p - begin) * 4,
                width * 4,
            )
            if TALL and padded - row >= 8:
                score_8(here)
                row += 8
            else:
                score_4(here)
                row += 4


@kernel(fast=False)
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
    """softmax(queries @ keys / sqrt(dim)) @ values for some tokens of one row and one kv head."""
    dim = keys.shape[2]
    shared = shape.heads // shape.kv_heads
    first, count, table = tile[0], tile[1], batch.tables[tile[2]]
    rows = count * shared
    padded = -(-rows // 4) * 4
    queries, scores, mixed, total = s.queries[thread], s.scores[thread], s.mixed[thread], s.total[thread]
    scale = single(1) / math.sqrt(single(dim))
    for t in range(count):
        for j in range(shared):
            at = (head * shared + j) * dim
            for i in range(dim):
                queries[t * shared + j, i] = qkv[first + t, at + i] * scale
    begin = 0 if window <= 0 else max(0, batch.positions[first] + 1 - window)
    begin = begin // PANEL * PANEL
    end = -(-(batch.positions[first + count - 1] + 1) // PANEL) * PANEL
    width = scores.shape[1]
    page = dim * PANEL * 2
    score_pages(queries, padded, head, table, begin, end, keys, scores)
    for row in range(rows):
        position = batch.positions[first + row // shared]
        if window > 0:
            scores[row, : max(0, position + 1 - window - begin)] = -np.inf
        scores[row, position + 1 - begin : end - begin] = -np.inf
        soften((address(scores[row]), end - begin, address(total) + 4 * row))
    mixed[:padded] = single(0)
    for p in range(begin, end, PANEL):
        at = address(values) + (table[p // PANEL] * shape.kv_heads + head) * page
        for row in range(0, padded, 4):
            mix_4(
                (
                    address(scores) + (row * width + p - begin) * 4,
                    width * 4,
                    at,
                    dim,
                    address(mixed) + row * dim * 4,
                )
            )
    groups = dim // GROUP
    for row in range(rows):
        inverse = single(1) / total[row]
        for i in range(dim):
            mixed[row, i] *= inverse
        t, at = first + row // shared, (head * shared + row % shared) * groups
        round_coarse(
            (
                address(mixed[row]),
                groups,
                address(s.heads[t]) + at * GROUP,
                address(s.heads_scales[t]) + at * SCALES,
            )
        )
