"""Inner loops of attention in vector instructions: scores of keys, softmax, weighted values."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from fllm_backends.torch.fused.formats import PANEL
from fllm_backends.torch.fused.simd_builder import SINGLE, Emitter, SimdBuilder, simd_function
from fllm_backends.torch.fused.target import Target

BLOCK = 128
"""Keys that a tile attends to before its sums are rescaled.

Blocks begin at multiples of this position, so that sums do not depend on the tile.
"""
PAGES = BLOCK // PANEL
PAGES_AHEAD = 2
"""Pages to prefetch, whose addresses follow those of a block's pages."""
STATE = 4
"""Floats of a row's state: the largest score, the sum of the weights, and the factor for earlier sums."""


class CacheType(IntEnum):
    """The numbers of a KV cache, and their layout in a page of `PANEL` tokens."""

    HALF = 0
    """float16, multiplied in float32: keys are [dim, PANEL] and values [PANEL, dim]."""
    BFLOAT = 1
    """bfloat16, multiplied in pairs by ``vdpbf16ps``, as queries and weights are.

    Keys are [dim / 2, PANEL, 2], values [PANEL / 2, dim, 2].
    """


def cache_shapes(kind: CacheType, dim: int, value_dim: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of a head's keys and values in a page. Pairs of bfloat16 are neighbours."""
    if kind is CacheType.BFLOAT:
        return (dim // 2, 2 * PANEL), (PANEL // 2, 2 * value_dim)
    return (dim, PANEL), (PANEL, value_dim)


def block_scores(target: Target, rows: int, kind: CacheType) -> Emitter:
    """Return the emitter of the product of ``rows`` queries with the keys of some pages.

    Its arguments are ``(queries, dim, pages, count, out, out_stride)``.

    Queries are [rows, dim], ``pages`` is the address of ``count`` addresses, a multiple of `pages_at_once`.
    ``out`` has `PANEL` floats in each row for each page.
    """
    step = pages_at_once(target)
    unroll = 4 if kind is CacheType.BFLOAT else 1

    def emit(
        x: SimdBuilder, queries: Any, dim: Any, pages: Any, count: Any, out: Any, out_stride: Any
    ) -> None:
        b, parts = x.builder, step * PANEL // x.width
        bytes_each = 2 if kind is CacheType.BFLOAT else 4
        stride = b.mul(dim, x.int64(bytes_each))
        starts = [x.at_stride(queries, stride, r) for r in range(rows)]
        lines = b.lshr(dim, x.int64(1)) if kind is CacheType.BFLOAT else dim

        def across(page: Any, _: list[Any]) -> list[Any]:
            places = b.add(pages, b.shl(page, x.int64(3)))
            at = [x.load_int64(x.at_offset(places, 8 * i)) for i in range(step)]
            ahead = [x.load_int64(x.at_offset(places, 8 * (i + PAGES_AHEAD))) for i in range(step)]

            def down(line: Any, totals: list[Any]) -> list[Any]:
                for u in range(unroll):
                    offset = b.mul(b.add(line, x.int64(u)), x.int64(2 * PANEL * (4 // bytes_each)))
                    columns = []
                    for i in range(step):
                        x.prefetch(b.add(ahead[i], offset))
                        columns += _load_line(x, b.add(at[i], offset), PANEL // x.width, kind)
                    place = b.shl(b.add(line, x.int64(u)), x.int64(2))
                    results = []
                    for r in range(rows):
                        query = x.load_broadcast(b.add(starts[r], place))
                        for i, column in enumerate(columns):
                            results.append(_multiply_add(x, query, column, totals[r * parts + i], kind))
                    totals = results
                return totals

            totals = x.loop(lines, unroll, [x.constant(x.floats, 0.0)] * (rows * parts), down)
            place = b.add(out, b.mul(page, x.int64(4 * PANEL)))
            for i, total in enumerate(totals):
                row = x.at_stride(place, out_stride, i // parts)
                x.store(total, x.at_offset(row, 4 * x.width * (i % parts)))
            return []

        x.loop(count, step, [], across)

    return emit


def pages_at_once(target: Target) -> int:
    """Return the number of pages whose scores are computed together."""
    return 2 if target.width == PANEL else 1


def block_values(target: Target, rows: int, kind: CacheType) -> Emitter:
    """Return the emitter of weighted sums of values.

    Its arguments are ``(weights, weights_stride, pages, count, dim, states, out)``.

    ``out``, [rows, dim] floats, is multiplied with the factors in ``states``, then the weights times the
    values of ``count`` pages are added; ``pages`` is the address of their addresses.
    """
    chunk = 2 * target.width
    bfloat = kind is CacheType.BFLOAT

    def emit(
        x: SimdBuilder,
        weights: Any,
        weights_stride: Any,
        pages: Any,
        count: Any,
        dim: Any,
        states: Any,
        out: Any,
    ) -> None:
        b = x.builder
        stride, line = b.shl(dim, x.int64(2)), 4 * x.width
        ends = [x.at_stride(out, stride, r) for r in range(rows)]
        starts = [x.at_stride(weights, weights_stride, r) for r in range(rows)]
        factors = [x.at_offset(states, 4 * (STATE * r + 2)) for r in range(rows)]

        def across(column: Any, _: list[Any]) -> list[Any]:
            at = b.shl(column, x.int64(2))
            places = [x.at_offset(b.add(end, at), line * i) for end in ends for i in range(2)]

            def along(page: Any, totals: list[Any]) -> list[Any]:
                slot = b.add(pages, b.shl(page, x.int64(3)))
                values = b.add(x.load_int64(slot), at if bfloat else b.lshr(at, x.int64(1)))
                ahead = b.add(x.load_int64(x.at_offset(slot, 8)), at if bfloat else b.lshr(at, x.int64(1)))
                weight = b.mul(page, x.int64(PANEL * (2 if bfloat else 4)))
                for token in range(0, PANEL, 2 if bfloat else 1):
                    offset = (
                        b.mul(stride, x.int64(token // 2))
                        if bfloat
                        else b.mul(b.lshr(stride, x.int64(1)), x.int64(token))
                    )
                    x.prefetch(b.add(ahead, offset))
                    if bfloat:
                        x.prefetch(x.at_offset(b.add(ahead, offset), line))
                    both = _load_line(x, b.add(values, offset), 2, kind)
                    results = []
                    for r in range(rows):
                        place = x.at_offset(b.add(starts[r], weight), 4 * (token // 2 if bfloat else token))
                        one = x.load_broadcast(place)
                        results += [_multiply_add(x, one, both[i], totals[2 * r + i], kind) for i in range(2)]
                    totals = results
                return totals

            before = [
                b.fmul(x.load(place), x.load_broadcast(factors[i // 2])) for i, place in enumerate(places)
            ]
            for total, place in zip(x.loop(count, 1, before, along), places, strict=True):
                x.store(total, place)
            return []

        x.loop(dim, chunk, [], across)

    return emit


def _load_line(x: SimdBuilder, at: Any, count: int, kind: CacheType) -> list[Any]:
    """Load vectors of numbers of the cache: of floats, or of pairs of bfloat16."""
    if kind is CacheType.BFLOAT:
        return [x.load(x.at_offset(at, 4 * x.width * i)) for i in range(count)]
    return [x.load_half(x.at_offset(at, 2 * x.width * i)) for i in range(count)]


def _multiply_add(x: SimdBuilder, a: Any, b: Any, total: Any, kind: CacheType) -> Any:
    return x.dot_bfloat(total, a, b) if kind is CacheType.BFLOAT else x.fma(a, b, total)


def block_weights(target: Target, rows: int, kind: CacheType) -> Emitter:
    """Return the emitter of the weights e^(score - maximum) of a block of a row.

    Its arguments are ``(scores, count, state, out)``.

    ``count`` is a multiple of `PANEL` times `pages_at_once`. A score of -infinity becomes 0. The state is
    updated: the largest score so far, the sum of all weights, and the factor for earlier sums (the online
    softmax of Milakov and Gimelshein, arXiv:1805.02867). ``rows`` is 1.
    """
    assert rows == 1
    assert target.bfloat or kind is CacheType.HALF
    bfloat = kind is CacheType.BFLOAT
    step = 2 if bfloat else 1

    def emit(x: SimdBuilder, scores: Any, count: Any, state: Any, out: Any) -> None:
        b = x.builder

        def load(index: Any, part: int = 0) -> Any:
            return x.load(x.at_offset(b.add(scores, b.shl(index, x.int64(2))), 4 * x.width * part))

        earlier = x.load_broadcast(state)
        (largest,) = x.loop(count, x.width, [earlier], lambda i, results: [x.maximum(load(i), results[0])])
        top = x.splat(x.reduce_max(largest), x.floats)

        def weigh(score: Any) -> Any:
            below = b.fsub(score, top)
            return x.exp_short(below) if bfloat else x.exp(below)

        def body(index: Any, sums: list[Any]) -> list[Any]:
            parts = [weigh(load(index, part)) for part in range(step)]
            if bfloat:
                x.store(x.round_to_bfloat(*parts), b.add(out, b.shl(index, x.int64(1))))
            else:
                x.store(parts[0], b.add(out, b.shl(index, x.int64(2))))
            return [b.fadd(total, part) for total, part in zip(sums, parts, strict=True)]

        sums = x.loop(count, step * x.width, [x.constant(x.floats, 0.0)] * step, body)
        total = x.reduce_sum(sums[0] if step == 1 else b.fadd(*sums))
        factor = weigh(earlier)
        x.store(x.first_lane(top), state)
        before = b.fmul(x.load(x.at_offset(state, 4), SINGLE), x.first_lane(factor))
        x.store(b.fadd(before, total), x.at_offset(state, 4))
        x.store(x.first_lane(factor), x.at_offset(state, 8))

    return emit


def soft_cap(target: Target) -> Any:
    """Make ``(scores, count, cap)``: cap * tanh(score / cap) in place, with ``cap`` the address of a float.

    ``count`` is a multiple of `PANEL`. tanh(x) is ``1 - 2 / (e^2x + 1)``.
    """

    @simd_function(target.width)
    def emit(x: SimdBuilder, scores: Any, count: Any, cap: Any) -> None:
        b = x.builder
        limit, one, two = x.load_broadcast(cap), x.constant(x.floats, 1.0), x.constant(x.floats, 2.0)

        def body(index: Any, _: list[Any]) -> list[Any]:
            at = b.add(scores, b.shl(index, x.int64(2)))
            power = x.exp(b.fdiv(b.fmul(x.load(at), two), limit))
            x.store(b.fmul(limit, b.fsub(one, b.fdiv(two, b.fadd(power, one)))), at)
            return []

        x.loop(count, x.width, [], body)

    return emit
