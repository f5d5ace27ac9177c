"""Attention of a tile: neighbouring tokens of one row, and the heads that share a kv head.

What depends on the `CacheType` is made by functions that take it, and compiled when it is used.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types

from fllm_backends.torch.fused import simd_attention
from fllm_backends.torch.fused.formats import PANEL
from fllm_backends.torch.fused.intrinsics import address, bfloat_bits
from fllm_backends.torch.fused.jit import kernel
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
from fllm_backends.torch.fused.target import TARGET

EIGHT_ROWS_FIT = TARGET.width == 16
"""Whether there are enough registers for the sums of eight rows."""
PAGES_AT_ONCE = pages_at_once(TARGET)
PARTS = (block_scores, block_values, block_weights)
SCORES, VALUES, WEIGHTS = range(len(PARTS))
LOWEST = np.float32(-1e30)
"""Stands for the largest of no scores. It is finite, so that its difference to itself is 0."""

soft_cap = simd_attention.soft_cap(TARGET)

single = np.float32


@intrinsic(prefer_literal=True)
def attention_part(typingctx: Any, part: Any, rows: Any, kind: Any, arguments: Any) -> Any:  # noqa: ARG001
    """Run one of `PARTS` for a constant number of rows and a constant `CacheType`."""
    emit = PARTS[part.literal_value](TARGET, rows.literal_value, CacheType(kind.literal_value))

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit(SimdBuilder(builder, TARGET.width), *unpack_integers(context, builder, signature, values))
        return context.get_dummy_value()

    return types.void(part, rows, kind, arguments), codegen


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


@kernel(fastmath=False)
def first_attended(position: Any, window: Any) -> Any:
    """Return the first position that a token attends to: see `attend_tile`."""
    if window > 0:
        return max(0, position + 1 - window)
    return position // -window * -window if window < 0 else 0


@kernel(fastmath=False)
def start_states(shape: Any, head: Any, states: Any, rows: Any) -> None:
    """Write the states of rows that have attended to nothing yet but a sink."""
    shared = shape.heads // shape.kv_heads
    for row in range(rows):
        states[row, 0], states[row, 1] = LOWEST, single(0)
        if len(shape.sinks):
            states[row, 0], states[row, 1] = shape.sinks[head * shared + row % shared], single(1)


@kernel(fastmath=False)
def cap_and_mask(
    shape: Any, positions: Any, window: Any, start: Any, columns: Any, rows: Any, scores: Any
) -> None:
    """Limit the scores of a block, and mask those of keys that a token does not attend to.

    ``positions`` are those of the tile's tokens, ``start`` that of the block.
    """
    if shape.softcap[0] > single(0):
        for row in range(rows):
            soft_cap((address(scores) + row * BLOCK * 4, columns, address(shape.softcap)))
    shared = shape.heads // shape.kv_heads
    for t in range(len(positions)):
        first = first_attended(positions[t], window) - start if window != 0 else 0
        end = positions[t] + 1 - start
        if first > 0 or end < columns:
            for row in range(t * shared, t * shared + shared):
                scores[row, : max(0, first)] = -np.inf
                scores[row, max(0, end) : columns] = -np.inf


@cache
def query_kernel(kind: int) -> Any:
    """Return the function that writes the scaled queries of a tile."""
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

    return fill_queries


@cache
def score_kernel(kind: int) -> Any:
    """Return the function that multiplies the queries of a tile with the keys of a block."""

    @kernel(fastmath=False)
    def score_block(padded: Any, dim: Any, count: Any, s: Any, thread: Any) -> None:
        queries, pages = address(s.queries[thread]), address(s.pages[thread])
        scores, stride = address(s.scores[thread]), s.queries.shape[2] * s.queries.itemsize
        row = 0
        while row < padded:
            arguments = (queries + row * stride, dim, pages, count, scores + row * BLOCK * 4, BLOCK * 4)
            if EIGHT_ROWS_FIT and padded - row >= 8:
                attention_part(SCORES, 8, kind, arguments)
                row += 8
            else:
                attention_part(SCORES, 4, kind, arguments)
                row += 4

    return score_block


@cache
def value_kernel(kind: int) -> Any:
    """Return the function that makes weights of the scores of a block, and adds its weighted values."""

    @kernel(fastmath=False)
    def add_block(rows: Any, padded: Any, columns: Any, dim: Any, count: Any, s: Any, thread: Any) -> None:
        weights, states = address(s.weights[thread]), address(s.states[thread])
        scores, pages = address(s.scores[thread]), address(s.pages[thread, 1])
        out, stride = address(s.weighted[thread]), BLOCK * s.weights.itemsize
        for row in range(rows):
            arguments = (
                scores + row * BLOCK * 4,
                columns,
                states + row * STATE * 4,
                weights + row * stride,
            )
            attention_part(WEIGHTS, 1, kind, arguments)
        row = 0
        while row < padded:
            places = weights + row * stride, states + row * STATE * 4, out + row * dim * 4
            inputs = (places[0], stride, pages, count, dim, places[1], places[2])
            if EIGHT_ROWS_FIT and padded - row >= 8:
                attention_part(VALUES, 8, kind, inputs)
                row += 8
            else:
                attention_part(VALUES, 4, kind, inputs)
                row += 4

    return add_block


@cache
def tile_kernel(kind: int) -> Any:
    """Return `attend_tile` for a `CacheType`."""
    kind = int(kind)  # a constant of the kernels
    fill_queries, score_block, add_block = query_kernel(kind), score_kernel(kind), value_kernel(kind)

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
        rows, table = tile[1] * (shape.heads // shape.kv_heads), batch.page_tables[tile[2]]
        padded, positions = -(-rows // 4) * 4, batch.positions[tile[0] : tile[0] + tile[1]]
        fill_queries(qkv, shape, tile, head, dim, s.queries[thread])
        s.weighted[thread, :padded] = single(0)
        start_states(shape, head, s.states[thread], rows)
        begin = first_attended(positions[0], window) // BLOCK * BLOCK
        end = positions[-1] // PANEL * PANEL + PANEL
        for start in range(begin, end, BLOCK):
            count = min(PAGES, (end - start) // PANEL)
            place_pages(table, start, end, head, keys, s.pages[thread, 0])
            place_pages(table, start, end, head, values, s.pages[thread, 1])
            columns = -(-count // PAGES_AT_ONCE) * PAGES_AT_ONCE * PANEL
            score_block(padded, dim, count, s, thread)
            cap_and_mask(shape, positions, window, start, columns, rows, s.scores[thread])
            add_block(rows, padded, columns, value_dim, count, s, thread)
        for row in range(rows):
            inverse = single(1) / s.states[thread, row, 1]
            for i in range(value_dim):
                s.weighted[thread, row, i] *= inverse

    return attend_tile
