"""The inner loops in vector instructions: products with packed weights, attention's two, and rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir

from fllm_backends.torch.fused.packing import GROUP, PANEL, RECORD_4, RECORD_8, TAIL
from fllm_backends.torch.fused.simd_builder import INT16, INT64, SINGLE, Lanes, procedure
from fllm_backends.torch.fused.target import Target

SCALES = 8
"""Bytes that a rounded group of activations has beside its numbers: what 1 is worth, and their sum."""
AHEAD = 6
"""Records of weights to fetch in advance: their memory is slower than the arithmetic, and only that waits."""
SHIFT = 7
"""Bits of the second plane."""


def product(target: Target, rows: int, bits: int, planes: int) -> Any:
    """``(a, a_stride, scales, scales_stride, records, groups, bias, out, out_stride, add)``.

    Products of ``rows`` rows of rounded activations with a panel of weights, plus bias, to ``rows`` times
    `PANEL` floats at ``out``; added to what is there if ``add`` is 1. Activations are numbers of 8 bits or,
    in two planes, of 15: two of bytes for ``vpdpbusd``, else int16. Sums are in the order of the groups
    whatever ``rows`` is.
    """
    width = target.width
    record = RECORD_4 if bits == 4 else RECORD_8

    @procedure(width)
    def emit(
        x: Lanes, a: Any, a_stride: Any, s: Any, s_stride: Any, w: Any, groups: Any, bias: Any, out: Any,
        out_stride: Any, add: Any,
    ) -> None:  # fmt: skip
        b = x.builder
        summed = _dots(bits, planes) if target.dot else _words(bits) if planes == 2 else _pairs(bits)
        for part in range(0, PANEL, width):

            def body(group: Any, totals: list[Any], part: int = part) -> list[Any]:
                at = b.add(w, b.mul(group, x.integer(record)))
                if part == 0:
                    for line in range(0, record, 64):
                        x.prefetch(x.after(at, AHEAD * record + line))
                place = b.mul(group, x.integer(GROUP * planes))
                lines = [b.add(x.step(a, a_stride, r), place) for r in range(rows)]
                sums = summed(x, x.after(at, 4 * part), lines)
                tail = x.after(at, record - TAIL + 2 * part)
                step, low = x.load_half(tail), x.load_half(x.after(tail, 2 * PANEL))
                scales = b.add(s, b.mul(group, x.integer(SCALES)))
                found = []
                for r, (total, whole) in enumerate(zip(totals, sums, strict=True)):
                    mine = x.step(scales, s_stride, r)
                    total = x.fma(b.sitofp(whole, x.floats), b.fmul(step, x.spread(mine)), total)
                    found.append(x.fma(low, x.spread(x.after(mine, 4)), total))
                return found

            for r, total in enumerate(x.loop(groups, 1, [x.all(x.floats, 0.0)] * rows, body)):
                at = x.after(x.step(out, out_stride, r), 4 * part)
                value = b.fadd(total, x.load(x.after(bias, 4 * part)))
                more = b.icmp_signed("!=", add, x.integer(0))
                x.store(b.select(more, b.fadd(value, x.load(at)), value), at)

    return emit


Sums = Callable[[Lanes, Any, list[Any]], list[Any]]
"""Of the weights at an address times each of some rows of activations, over a group."""


def _dots(bits: int, planes: int) -> Sums:
    """By ``vpdpbusd``, of which two sums run side by side where the rows are few."""

    def sums(x: Lanes, w: Any, rows: list[Any]) -> list[Any]:
        b = x.builder
        found = [x.all(x.integers, 0)] * len(rows)
        for plane in range(planes):
            totals = [[total, x.all(x.integers, 0)][: 2 if len(rows) < 4 else 1] for total in found]
            for at, quad in enumerate(_quads(x, w, bits)):
                for row, total in zip(rows, totals, strict=True):
                    activations = x.spread(x.after(row, GROUP * plane + 4 * at), x.integers)
                    which = at % len(total)
                    total[which] = x.dot(total[which], quad, activations)
            found = [total[0] if len(total) == 1 else b.add(*total) for total in totals]
            if plane < planes - 1:
                found = [b.shl(total, x.all(x.integers, SHIFT)) for total in found]
        return found

    return sums


def _pairs(bits: int) -> Sums:
    """By ``pmaddubsw``, whose sums of eight pairs stay below 2^15 for weights of 4 bits.

    So weights of 8 bits are taken as two halves.
    """

    def sums(x: Lanes, w: Any, rows: list[Any]) -> list[Any]:
        b = x.builder
        halves = bits // 4
        totals: list[list[Any]] = [[None] * halves for _ in rows]
        for at, quad in enumerate(_quads(x, w, bits)):
            parts = [quad] if halves == 1 else [*_nibbles(x, quad)]
            for row, total in zip(rows, totals, strict=True):
                activations = b.bitcast(x.spread(x.after(row, 4 * at), x.integers), x.bytes)
                for half, part in enumerate(parts):
                    pair = x.multiply_pairs(part, activations)
                    total[half] = pair if total[half] is None else b.add(total[half], pair)
        weights = [x.all(x.shorts, 16**half) for half in range(halves)]
        whole = [[x.add_pairs(*both) for both in zip(total, weights, strict=True)] for total in totals]
        return [one[0] if halves == 1 else b.add(*one) for one in whole]

    return sums


def _words(bits: int) -> Sums:
    """By ``pmaddwd``, of activations in int16."""

    def sums(x: Lanes, w: Any, rows: list[Any]) -> list[Any]:
        b = x.builder
        four = ir.VectorType(INT64, x.width // 2)
        totals = [[x.all(x.integers, 0)] * 2 for _ in rows]
        for at, quad in enumerate(_quads(x, w, bits)):
            halves = [b.zext(x.pick(quad, range(start, start + 16)), x.shorts) for start in (0, 16)]
            for row, total in zip(rows, totals, strict=True):
                activations = b.bitcast(x.spread(x.after(row, 8 * at), four), x.shorts)
                for which, half in enumerate(halves):
                    total[which] = b.add(total[which], x.add_pairs(half, activations))
        # Each half has its columns' sums in two neighbouring lanes.
        return [x.pick(x.add_neighbours(*total), (0, 1, 4, 5, 2, 3, 6, 7)) for total in totals]

    return sums


def _quads(x: Lanes, w: Any, bits: int) -> Iterator[Any]:
    """The weights of a group, four consecutive ones of a row in each lane."""
    for at in range(0, GROUP // 4 * bits // 8):
        both = x.load(x.after(w, at * 4 * PANEL), x.bytes)
        yield from (both,) if bits == 8 else _nibbles(x, both)


def _nibbles(x: Lanes, both: Any) -> tuple[Any, Any]:
    """The low and the high half of each byte."""
    b, mask = x.builder, x.all(x.bytes, 15)
    high = b.lshr(b.bitcast(both, x.integers), x.all(x.integers, 4))
    return b.and_(both, mask), b.and_(b.bitcast(high, x.bytes), mask)


def score(target: Target, rows: int) -> Any:
    """``(queries, dim, keys, out, out_stride)``: ``rows`` queries times a block's keys.

    Queries: [rows, dim]; keys: [dim, PANEL] in float16; out: `PANEL` floats for each query.
    """

    @procedure(target.width)
    def emit(x: Lanes, queries: Any, dim: Any, keys: Any, out: Any, out_stride: Any) -> None:
        b, parts = x.builder, PANEL // x.width
        stride = b.shl(dim, x.integer(2))

        def body(at: Any, totals: list[Any]) -> list[Any]:
            line = b.add(keys, b.mul(at, x.integer(2 * PANEL)))
            columns = [x.load_half(x.after(line, 2 * x.width * part)) for part in range(parts)]
            found = []
            for r in range(rows):
                one = x.spread(b.add(x.step(queries, stride, r), b.shl(at, x.integer(2))))
                found += [x.fma(one, column, totals[r * parts + i]) for i, column in enumerate(columns)]
            return found

        totals = x.loop(dim, 1, [x.all(x.floats, 0.0)] * (rows * parts), body)
        for i, total in enumerate(totals):
            x.store(total, x.after(x.step(out, out_stride, i // parts), 4 * x.width * (i % parts)))

    return emit


def mix(target: Target, rows: int) -> Any:
    """``(weights, weights_stride, values, dim, out)``: add a block's values times ``rows`` rows of weights.

    Weights: `PANEL` floats for each row; values: [PANEL, dim] in float16; out: [rows, dim].
    """

    @procedure(target.width)
    def emit(x: Lanes, weights: Any, weights_stride: Any, values: Any, dim: Any, out: Any) -> None:
        b = x.builder
        stride, line = b.shl(dim, x.integer(2)), 4 * x.width
        ends = [x.step(out, stride, r) for r in range(rows)]

        def across(at: Any, _: list[Any]) -> list[Any]:
            places = [x.after(b.add(end, at), line * i) for end in ends for i in range(2)]

            def down(token: Any, totals: list[Any]) -> list[Any]:
                value = b.add(values, b.lshr(b.add(at, b.mul(token, stride)), x.integer(1)))
                both = [x.load_half(value), x.load_half(x.after(value, line // 2))]
                found = []
                for r in range(rows):
                    one = x.spread(b.add(x.step(weights, weights_stride, r), b.shl(token, x.integer(2))))
                    found += [x.fma(one, both[i], totals[2 * r + i]) for i in range(2)]
                return found

            totals = x.loop(x.integer(PANEL), 1, [x.load(place) for place in places], down)
            for total, place in zip(totals, places, strict=True):
                x.store(total, place)
            return []

        x.loop(stride, 2 * line, [], across)

    return emit


def soften(target: Target) -> Any:
    """``(scores, count, total)``: e^(score - largest) in place, and their sum to ``total``.

    ``count`` is a multiple of `PANEL`; a score of -infinity becomes 0.
    """

    @procedure(target.width)
    def emit(x: Lanes, scores: Any, count: Any, total: Any) -> None:
        b = x.builder

        def at(index: Any) -> Any:
            return b.add(scores, b.shl(index, x.integer(2)))

        (largest,) = x.loop(
            count,
            x.width,
            [x.all(x.floats, float("-inf"))],
            lambda i, found: [x.larger(x.load(at(i)), found[0])],
        )
        top = x.splat(x.largest(largest), x.floats)

        def body(index: Any, sums: list[Any]) -> list[Any]:
            weight = x.exponential(b.fsub(x.load(at(index)), top))
            x.store(weight, at(index))
            return [b.fadd(sums[0], weight)]

        (sums,) = x.loop(count, x.width, [x.all(x.floats, 0.0)], body)
        x.store(x.sum(sums), total)

    return emit


def round_groups(target: Target, planes: int) -> Any:
    """``(values, count, out, scales)``: round groups of floats to whole numbers, each by its own largest."""

    @procedure(target.width)
    def emit(x: Lanes, values: Any, count: Any, out: Any, scales: Any) -> None:
        def body(group: Any, _: list[Any]) -> list[Any]:
            b = x.builder
            at = b.add(values, b.mul(group, x.integer(4 * GROUP)))
            parts = [x.load(x.after(at, 4 * i)) for i in range(0, GROUP, x.width)]
            place = b.add(out, b.mul(group, x.integer(GROUP * planes)))
            _round(x, parts, place, b.add(scales, b.mul(group, x.integer(SCALES))), planes, target)
            return []

        x.loop(count, 1, [], body)

    return emit


def gate(target: Target) -> Any:
    """``(gates, ups, out, scales)``: silu(gate) * up of one group, rounded."""

    @procedure(target.width)
    def emit(x: Lanes, gates: Any, ups: Any, out: Any, scales: Any) -> None:
        b, parts = x.builder, []
        one = x.all(x.floats, 1.0)
        for at in range(0, 4 * GROUP, 4 * x.width):
            value = x.load(x.after(gates, at))
            opened = b.fdiv(value, b.fadd(one, x.exponential(b.fsub(x.all(x.floats, 0.0), value))))
            parts.append(b.fmul(opened, x.load(x.after(ups, at))))
        _round(x, parts, out, scales, 1, target)

    return emit


def _round(x: Lanes, parts: list[Any], out: Any, scales: Any, planes: int, target: Target) -> None:
    """Round a group of floats, and note what 1 is worth and what their sum is."""
    b = x.builder
    largest = x.absolute(parts[0])
    for part in parts[1:]:
        largest = x.larger(x.absolute(part), largest)
    top = x.largest(largest)
    most, zero = SINGLE(127.0 * (1 if planes == 1 else 2**SHIFT)), SINGLE(0.0)
    factor = x.splat(b.select(b.fcmp_ordered(">", top, zero), b.fdiv(most, top), zero), x.floats)
    magic = x.all(x.floats, 12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    total = x.all(x.integers, 0)
    for at, part in enumerate(parts):
        whole = b.sub(b.bitcast(x.fma(part, factor, magic), x.integers), b.bitcast(magic, x.integers))
        total = b.add(total, whole)
        place = x.after(out, at * x.width)
        if planes == 1:
            x.store(b.trunc(whole, x.narrow), place)
        elif not target.dot:
            x.store(b.trunc(whole, ir.VectorType(INT16, x.width)), x.after(out, 2 * at * x.width))
        else:
            half = x.all(x.integers, 2 ** (SHIFT - 1))
            high = b.ashr(b.add(whole, half), x.all(x.integers, SHIFT))
            low = b.sub(whole, b.shl(high, x.all(x.integers, SHIFT)))
            x.store(b.trunc(high, x.narrow), place)
            x.store(b.trunc(low, x.narrow), x.after(place, GROUP))
    worth = b.fdiv(top, most)
    x.store(worth, scales)
    x.store(b.fmul(worth, b.sitofp(x.sum(total), SINGLE)), x.after(scales, 4))
