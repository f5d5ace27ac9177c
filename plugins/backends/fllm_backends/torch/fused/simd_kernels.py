"""Inner loops in vector instructions: products with packed weights, attention, softmax and quantization."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from llvmlite import ir

from fllm_backends.torch.fused.dot_products import PLANE_BITS, QUADS, SIGN_BIT, dot_product
from fllm_backends.torch.fused.formats import GROUP, PANEL, Format, Scales
from fllm_backends.torch.fused.simd_builder import (
    INT16,
    SINGLE,
    Emitter,
    SimdBuilder,
    simd_function,
)
from fllm_backends.torch.fused.target import Target

SCALES = 4
"""Floats that each quantized group of activations has: its scale, its sum, and the sums of its halves."""
SCALE_BYTES = 4 * SCALES
PREFETCH_RECORDS = 6
"""Records of weights to prefetch.

Their memory is slower than the arithmetic, and nothing else waits for it.
"""


class Activation(IntEnum):
    """The activation function of a feed-forward layer's gate."""

    SILU = 0
    GELU = 1
    GELU_TANH = 2


def panel_matmul(target: Target, rows: int, form: Format, planes: int) -> Emitter:
    """Return the emitter of the product with a panel of weights.

    Its arguments are ``(a, a_stride, scales, scales_stride, panel, groups, bias, out, out_stride, add)``. It
    multiplies ``rows`` rows of quantized activations, adds the bias, and writes ``rows`` times `PANEL` floats
    to ``out``, added to the previous content if ``add`` is 1. Activations have 8 bits, or 15: in two planes
    of bytes if `Target.planes`, otherwise in int16. Sums are in the order of the groups regardless of
    ``rows``.
    """
    width, dot = target.width, dot_product(target, form.bits, planes)
    shifted = target.signed and form.bits == 8

    def emit(
        x: SimdBuilder,
        a: Any,
        a_stride: Any,
        s: Any,
        s_stride: Any,
        w: Any,
        groups: Any,
        bias: Any,
        out: Any,
        out_stride: Any,
        add: Any,
    ) -> None:
        b = x.builder

        def add_group(group: Any, at: Any, grids: list[Grid], totals: list[Any]) -> list[Any]:
            """Add the products with a group of weights at an address."""
            place, scales = b.mul(group, x.int64(GROUP * planes)), b.mul(group, x.int64(SCALE_BYTES))
            lines = [b.add(x.at_stride(a, a_stride, r), place) for r in range(rows)]
            scales_at = [x.at_stride(b.add(s, scales), s_stride, r) for r in range(rows)]
            quads, totals = QUADS // len(grids), [*totals]
            for index, (scale, minimum) in enumerate(grids):
                if shifted:
                    minimum = x.fma(scale, x.constant(x.floats, SIGN_BIT), minimum)
                sums = dot(x, at, lines, range(index * quads, (index + 1) * quads))
                sum_offset = 4 * (index + len(grids))
                for r in range(rows):
                    factor = b.fmul(scale, x.load_broadcast(scales_at[r]))
                    total = x.fma(b.sitofp(sums[r], x.floats), factor, totals[r])
                    activations = x.load_broadcast(x.at_offset(scales_at[r], sum_offset))
                    totals[r] = x.fma(minimum, activations, total)
            return totals

        for part in range(0, PANEL, width):

            def body(block: Any, totals: list[Any], part: int = part) -> list[Any]:
                at = b.add(w, b.mul(block, x.int64(form.block_bytes)))
                return _add_block(x, form, block, at, part, totals, add_group)

            blocks = b.sdiv(groups, x.int64(form.groups))
            for r, total in enumerate(x.loop(blocks, 1, [x.constant(x.floats, 0.0)] * rows, body)):
                at = x.at_offset(x.at_stride(out, out_stride, r), 4 * part)
                value = b.fadd(total, x.load(x.at_offset(bias, 4 * part)))
                accumulate = b.icmp_signed("!=", add, x.int64(0))
                x.store(b.select(accumulate, b.fadd(value, x.load(at)), value), at)

    return emit


Grid = tuple[Any, Any]
"""The scales and the minima of a group, or of half a group, of the rows of a panel."""


def _add_block(
    x: SimdBuilder,
    form: Format,
    block: Any,
    at: Any,
    part: int,
    totals: list[Any],
    add_group: Callable[[Any, Any, list[Grid], list[Any]], list[Any]],
) -> list[Any]:
    """Return the totals with the products of a block at an address added; ``part`` is the first row."""
    b = x.builder
    centre = x.constant(x.floats, -(2.0 ** (form.bits - 1)))
    values = form.groups * form.value_bytes
    tail = x.at_offset(at, values)
    if part == 0:
        ahead = PREFETCH_RECORDS if form.groups == 1 else 1
        for line in range(values if form.groups > 1 else 0, form.block_bytes, 64):
            x.prefetch(x.at_offset(at, ahead * form.block_bytes + line))
    at = x.at_offset(at, 4 * part)

    def group_at(group: Any) -> tuple[Any, Any]:
        """Return the number and the address of a group of the block. Prefetch the same one of the next."""
        group_at = b.add(at, b.mul(group, x.int64(form.value_bytes)))
        if part == 0:
            for line in range(0, form.value_bytes, 64):
                x.prefetch(x.at_offset(group_at, form.block_bytes + line))
        return b.add(b.mul(block, x.int64(form.groups)), group), group_at

    if form.scales is Scales.GROUP:
        scale = x.load_half(x.at_offset(tail, 2 * part))
        minimum_at = x.at_offset(tail, 2 * (part + PANEL))
        minimum = x.load_half(minimum_at) if form.minima else b.fmul(scale, centre)
        return add_group(block, at, [(scale, minimum)], totals)

    if form.scales is Scales.ZEROS:
        scale = x.load_half(x.at_offset(tail, 2 * part))
        zero = b.zext(x.load(x.at_offset(tail, 2 * PANEL + part), x.narrow_bytes), x.integers)
        return add_group(block, at, [(scale, b.fneg(b.fmul(scale, b.sitofp(zero, x.floats))))], totals)

    if form.scales is Scales.NESTED:
        shared_at = x.at_offset(tail, (form.groups + 4) * PANEL + 2 * part)
        shared = x.load_half(shared_at), x.load_half(x.at_offset(shared_at, 2 * PANEL))
        high = x.load(x.at_offset(tail, form.groups * PANEL + 4 * part), x.integers)

        def nested(group: Any, state: list[Any]) -> list[Any]:
            low_at = b.add(x.at_offset(tail, part), b.mul(group, x.int64(PANEL)))
            low = b.zext(x.load(low_at, x.narrow_bytes), x.integers)
            four, ends = x.constant(x.integers, 4), x.constant(x.integers, 48)
            scale = b.or_(b.and_(low, x.constant(x.integers, 15)), b.and_(b.shl(state[-1], four), ends))
            minimum = b.or_(b.lshr(low, four), b.and_(b.shl(state[-1], x.constant(x.integers, 2)), ends))
            grid = tuple(
                b.fmul(factor, b.sitofp(number, x.floats))
                for factor, number in zip(shared, (scale, minimum), strict=True)
            )
            return [*add_group(*group_at(group), [grid], state[:-1]), b.lshr(state[-1], four)]

        return x.loop(x.int64(form.groups), 1, [*totals, high], nested)[:-1]

    shared_scale = x.load_half(x.at_offset(tail, 2 * form.groups * PANEL + 2 * part))

    def halves(group: Any, totals: list[Any]) -> list[Any]:
        scales_at = b.add(x.at_offset(tail, part), b.mul(group, x.int64(2 * PANEL)))
        grids = []
        for half in range(2):
            number = b.sext(x.load(x.at_offset(scales_at, PANEL * half), x.narrow_bytes), x.integers)
            scale = b.fmul(shared_scale, b.sitofp(number, x.floats))
            grids.append((scale, b.fmul(scale, centre)))
        return add_group(*group_at(group), grids, totals)

    return x.loop(x.int64(form.groups), 1, totals, halves)


def attention_scores(target: Target, rows: int) -> Any:
    """Make ``(queries, dim, keys, out, out_stride)``: ``rows`` queries times the keys of a page.

    Queries are [rows, dim], keys [dim, PANEL] in float16, and ``out`` has `PANEL` floats for each query.
    """

    @simd_function(target.width)
    def emit(x: SimdBuilder, queries: Any, dim: Any, keys: Any, out: Any, out_stride: Any) -> None:
        b, parts = x.builder, PANEL // x.width
        stride = b.shl(dim, x.int64(2))

        def body(at: Any, totals: list[Any]) -> list[Any]:
            line = b.add(keys, b.mul(at, x.int64(2 * PANEL)))
            columns = [x.load_half(x.at_offset(line, 2 * x.width * part)) for part in range(parts)]
            results = []
            for r in range(rows):
                query = x.load_broadcast(b.add(x.at_stride(queries, stride, r), b.shl(at, x.int64(2))))
                results += [x.fma(query, column, totals[r * parts + i]) for i, column in enumerate(columns)]
            return results

        totals = x.loop(dim, 1, [x.constant(x.floats, 0.0)] * (rows * parts), body)
        for i, total in enumerate(totals):
            x.store(total, x.at_offset(x.at_stride(out, out_stride, i // parts), 4 * x.width * (i % parts)))

    return emit


def weighted_values(target: Target, rows: int) -> Any:
    """Make ``(weights, weights_stride, values, dim, out)``: add ``rows`` rows of weights times values.

    Weights are `PANEL` floats for each row, values [PANEL, dim] of a page in float16, and ``out`` is
    [rows, dim].
    """

    @simd_function(target.width)
    def emit(x: SimdBuilder, weights: Any, weights_stride: Any, values: Any, dim: Any, out: Any) -> None:
        b = x.builder
        stride, line = b.shl(dim, x.int64(2)), 4 * x.width
        ends = [x.at_stride(out, stride, r) for r in range(rows)]

        def across(at: Any, _: list[Any]) -> list[Any]:
            places = [x.at_offset(b.add(end, at), line * i) for end in ends for i in range(2)]

            def down(token: Any, totals: list[Any]) -> list[Any]:
                value = b.add(values, b.lshr(b.add(at, b.mul(token, stride)), x.int64(1)))
                both = [x.load_half(value), x.load_half(x.at_offset(value, line // 2))]
                results = []
                for r in range(rows):
                    one = x.load_broadcast(
                        b.add(x.at_stride(weights, weights_stride, r), b.shl(token, x.int64(2)))
                    )
                    results += [x.fma(one, both[i], totals[2 * r + i]) for i in range(2)]
                return results

            totals = x.loop(x.int64(PANEL), 1, [x.load(place) for place in places], down)
            for total, place in zip(totals, places, strict=True):
                x.store(total, place)
            return []

        x.loop(stride, 2 * line, [], across)

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


def softmax(target: Target) -> Any:
    """Make ``(scores, count, total)``: e^(score - maximum) in place, and their sum to ``total``.

    ``count`` is a multiple of `PANEL`. A score of -infinity becomes 0.
    """

    @simd_function(target.width)
    def emit(x: SimdBuilder, scores: Any, count: Any, total: Any) -> None:
        b = x.builder

        def at(index: Any) -> Any:
            return b.add(scores, b.shl(index, x.int64(2)))

        (largest,) = x.loop(
            count,
            x.width,
            [x.constant(x.floats, float("-inf"))],
            lambda i, results: [x.maximum(x.load(at(i)), results[0])],
        )
        top = x.splat(x.reduce_max(largest), x.floats)

        def body(index: Any, sums: list[Any]) -> list[Any]:
            weight = x.exp(b.fsub(x.load(at(index)), top))
            x.store(weight, at(index))
            return [b.fadd(sums[0], weight)]

        (sums,) = x.loop(count, x.width, [x.constant(x.floats, 0.0)], body)
        x.store(x.reduce_sum(sums), total)

    return emit


def quantize_groups(target: Target, planes: int) -> Any:
    """Make ``(values, count, out, scales)``: quantize groups of floats, each by its largest magnitude."""

    @simd_function(target.width)
    def emit(x: SimdBuilder, values: Any, count: Any, out: Any, scales: Any) -> None:
        def body(group: Any, _: list[Any]) -> list[Any]:
            b = x.builder
            at = b.add(values, b.mul(group, x.int64(4 * GROUP)))
            parts = [x.load(x.at_offset(at, 4 * i)) for i in range(0, GROUP, x.width)]
            place = b.add(out, b.mul(group, x.int64(GROUP * planes)))
            _quantize_group(
                x, parts, place, b.add(scales, b.mul(group, x.int64(SCALE_BYTES))), planes, target
            )
            return []

        x.loop(count, 1, [], body)

    return emit


def activate_and_mul(target: Target, activation: Activation) -> Any:
    """Make ``(gates, ups, out, scales)``: activation(gate) * up of one group, quantized."""

    @simd_function(target.width)
    def emit(x: SimdBuilder, gates: Any, ups: Any, out: Any, scales: Any) -> None:
        parts = []
        for at in range(0, 4 * GROUP, 4 * x.width):
            opened = _activate(x, x.load(x.at_offset(gates, at)), activation)
            parts.append(x.builder.fmul(opened, x.load(x.at_offset(ups, at))))
        _quantize_group(x, parts, out, scales, 1, target)

    return emit


def _activate(x: SimdBuilder, value: Any, activation: Activation) -> Any:
    """Return activation(value). The tanh approximation of gelu is that of arXiv 1606.08415.

    It equals ``value * sigmoid(sqrt(8 / pi) * (value + 0.044715 * value^3))``.
    """
    b, one = x.builder, x.constant(x.floats, 1.0)
    if activation == Activation.GELU:
        return b.fmul(value, _normal_cdf(x, value))
    steep = value
    if activation == Activation.GELU_TANH:
        linear, cubic = (x.constant(x.floats, c * math.sqrt(8 / math.pi)) for c in (1.0, 0.044715))
        steep = b.fmul(value, x.fma(b.fmul(value, value), cubic, linear))
    return b.fdiv(value, b.fadd(one, x.exp(b.fsub(x.constant(x.floats, 0.0), steep))))


def _normal_cdf(x: SimdBuilder, value: Any) -> Any:
    """Return the distribution function of the standard normal distribution, to 1e-7 (A&S 26.2.17)."""
    b, zero, one = x.builder, x.constant(x.floats, 0.0), x.constant(x.floats, 1.0)
    t = b.fdiv(one, x.fma(x.abs(value), x.constant(x.floats, 0.2316419), one))
    tail = zero
    for c in (1.330274429, -1.821255978, 1.781477937, -0.356563782, 0.319381530):
        tail = b.fmul(b.fadd(tail, x.constant(x.floats, c)), t)
    density = x.exp(b.fmul(b.fmul(value, value), x.constant(x.floats, -0.5)))
    tail = b.fmul(tail, b.fmul(density, x.constant(x.floats, 1 / math.sqrt(2 * math.pi))))
    return b.select(b.fcmp_ordered(">=", value, zero), b.fsub(one, tail), tail)


def _quantize_group(
    x: SimdBuilder, parts: list[Any], out: Any, scales: Any, planes: int, target: Target
) -> None:
    """Quantize a group of floats; store the scale, the group's sum, and the sums of its halves."""
    b = x.builder
    magnitude = x.abs(parts[0])
    for part in parts[1:]:
        magnitude = x.maximum(x.abs(part), magnitude)
    top = x.reduce_max(magnitude)
    limit, zero = SINGLE(127.0 * (1 if planes == 1 else 2**PLANE_BITS)), SINGLE(0.0)
    factor = x.splat(b.select(b.fcmp_ordered(">", top, zero), b.fdiv(limit, top), zero), x.floats)
    # Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    magic = x.constant(x.floats, 12582912.0)
    totals = [x.constant(x.integers, 0)] * 2
    for at, part in enumerate(parts):
        quantized = b.sub(b.bitcast(x.fma(part, factor, magic), x.integers), b.bitcast(magic, x.integers))
        half = at * 2 // len(parts)
        totals[half] = b.add(totals[half], quantized)
        place = x.at_offset(out, at * x.width)
        if planes == 1:
            x.store(b.trunc(quantized, x.narrow_bytes), place)
        elif not target.planes:
            x.store(b.trunc(quantized, ir.VectorType(INT16, x.width)), x.at_offset(out, 2 * at * x.width))
        else:
            middle = x.constant(x.integers, 2 ** (PLANE_BITS - 1))
            high = b.ashr(b.add(quantized, middle), x.constant(x.integers, PLANE_BITS))
            low = b.sub(quantized, b.shl(high, x.constant(x.integers, PLANE_BITS)))
            x.store(b.trunc(high, x.narrow_bytes), place)
            x.store(b.trunc(low, x.narrow_bytes), x.at_offset(place, GROUP))
    scale = b.fdiv(top, limit)
    x.store(scale, scales)
    halves = [x.reduce_sum(total) for total in totals]
    for at, total in enumerate((b.add(*halves), *halves)):
        x.store(b.fmul(scale, b.sitofp(total, SINGLE)), x.at_offset(scales, 4 * (at + 1)))
