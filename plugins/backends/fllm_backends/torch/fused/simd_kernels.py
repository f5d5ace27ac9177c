"""Inner loops in vector instructions: products with packed weights, attention, softmax and quantization."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from fllm_backends.torch.fused.dot_products import PLANE_BITS, QUADS, SIGN_BIT, Dot, dot_product
from fllm_backends.torch.fused.formats import GROUP, PANEL, Format, Scales
from fllm_backends.torch.fused.simd_builder import (
    BIT,
    INT32,
    SINGLE,
    Emitter,
    SimdBuilder,
    simd_function,
)
from fllm_backends.torch.fused.target import Target

SCALES = 4
"""Floats that each quantized group of activations has: its scale, its sum, and the sums of its halves."""
SCALE_BYTES = 4 * SCALES
OUTLIER = 6.0
"""How many times the root of the mean square of a row a number may be for 8 bits to be enough.

The outputs of norms have a few channels much larger than the others. With 15 bits for their groups alone, the
KL divergence of the embedded model's distributions is 0.0008; 0.0005 with 15 bits for all, 0.003 with 8.
"""
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
    to ``out``, added to the previous content if ``add`` is 1. Activations have 8 bits, or 8 to 15 in two
    planes of bytes: see `quantize_groups`. Sums are in the order of the groups regardless of ``rows``.
    """
    width, dot = target.width, dot_product(target, form.bits)
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
            place, scales = b.mul(group, x.int64(GROUP)), b.mul(group, x.int64(SCALE_BYTES))
            lines = [b.add(x.at_stride(a, a_stride, r), place) for r in range(rows)]
            scales_at = [x.at_stride(b.add(s, scales), s_stride, r) for r in range(rows)]
            quads, totals = QUADS // len(grids), [*totals]
            has_low = _has_low_plane(x, scales_at) if planes == 2 else None
            for index, (scale, minimum) in enumerate(grids):
                if shifted:
                    minimum = x.fma(scale, x.constant(x.floats, SIGN_BIT), minimum)
                part = range(index * quads, (index + 1) * quads)
                sums = _group_sums(x, dot, at, lines, part, b.mul(groups, x.int64(GROUP)), has_low)
                sum_offset = 4 * (index + len(grids))
                for r in range(rows):
                    factor = b.fmul(scale, x.load_broadcast(scales_at[r]))
                    total = x.fma(sums[r], factor, totals[r])
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


def _has_low_plane(x: SimdBuilder, scales_at: list[Any]) -> Any:
    """Return whether the second plane of a group is needed for any of the rows: see `quantize_groups`."""
    b = x.builder
    bits = x.load(scales_at[0], INT32)
    for at in scales_at[1:]:
        bits = b.or_(bits, x.load(at, INT32))
    return b.trunc(bits, BIT)


def _group_sums(
    x: SimdBuilder, dot: Dot, at: Any, lines: list[Any], quads: range, columns: Any, has_low: Any
) -> list[Any]:
    """Return the dot products of a group with each row, in units of the first plane, as floats.

    The second plane is multiplied only if a row needs it. That changes no bit of the sums of other rows: they
    are multiplied with 128 and divided by it.
    """
    b = x.builder
    high = dot(x, at, lines, quads)
    if has_low is None:
        return [b.sitofp(total, x.floats) for total in high]

    def exact() -> list[Any]:
        shift, unit = x.constant(x.integers, PLANE_BITS), x.constant(x.floats, 2.0**-PLANE_BITS)
        low = dot(x, at, [b.add(line, columns) for line in lines], quads)
        both = [
            b.add(b.shl(*pair), total)
            for pair, total in zip(((one, shift) for one in high), low, strict=True)
        ]
        return [b.fmul(b.sitofp(total, x.floats), unit) for total in both]

    return x.either(has_low, exact, lambda: [b.sitofp(total, x.floats) for total in high])


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


def quantize_groups(target: Target, planes: int, outlier: float = 0.0) -> Any:
    """Make ``(values, count, out, scales)``: quantize a row of groups, each by its largest magnitude.

    With two planes, a group whose largest magnitude is more than ``outlier`` times the root of the mean
    square of the row has 15 bits, and the lowest bit of its scale is 1. The others have 8 bits, and a second
    plane of zeros. The scale is that of the first plane; the second one follows that of the whole row.
    """

    @simd_function(target.width)
    def emit(x: SimdBuilder, values: Any, count: Any, out: Any, scales: Any) -> None:
        b, most = x.builder, None
        if planes == 2:

            def add_square(i: Any, totals: list[Any]) -> list[Any]:
                part = x.load(b.add(values, b.shl(i, x.int64(2))))
                return [x.fma(part, part, totals[0])]

            columns = b.mul(count, x.int64(GROUP))
            (squares,) = x.loop(columns, x.width, [x.constant(x.floats, 0.0)], add_square)
            most = b.fdiv(b.fmul(x.reduce_sum(squares), SINGLE(outlier**2)), b.sitofp(columns, SINGLE))

        def body(group: Any, _: list[Any]) -> list[Any]:
            at = b.add(values, b.mul(group, x.int64(4 * GROUP)))
            parts = [x.load(x.at_offset(at, 4 * i)) for i in range(0, GROUP, x.width)]
            place = b.add(out, b.mul(group, x.int64(GROUP)))
            places = place, b.add(place, b.mul(count, x.int64(GROUP)))
            _quantize_group(x, parts, places, b.add(scales, b.mul(group, x.int64(SCALE_BYTES))), most)
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
        _quantize_group(x, parts, (out, out), scales, None)

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


def _quantize_group(x: SimdBuilder, parts: list[Any], out: tuple[Any, Any], scales: Any, most: Any) -> None:
    """Quantize a group of floats; store the scale, the group's sum, and the sums of its halves.

    ``out`` are the addresses of both planes. ``most`` is the largest square that 8 bits are enough for;
    ``None`` if there is one plane.
    """
    b = x.builder
    magnitude = x.abs(parts[0])
    for part in parts[1:]:
        magnitude = x.maximum(x.abs(part), magnitude)
    top = x.reduce_max(magnitude)
    high_limit, zero, shift = SINGLE(127.0), SINGLE(0.0), x.constant(x.integers, PLANE_BITS)
    fine = None if most is None else b.fcmp_ordered(">", b.fmul(top, top), most)
    units = SINGLE(1.0) if fine is None else b.select(fine, SINGLE(2.0**PLANE_BITS), SINGLE(1.0))
    limit = b.fmul(high_limit, units)
    factor = x.splat(b.select(b.fcmp_ordered(">", top, zero), b.fdiv(limit, top), zero), x.floats)
    # Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    magic = x.constant(x.floats, 12582912.0)
    totals = [x.constant(x.integers, 0)] * 2
    for at, part in enumerate(parts):
        quantized = b.sub(b.bitcast(x.fma(part, factor, magic), x.integers), b.bitcast(magic, x.integers))
        half = at * 2 // len(parts)
        totals[half] = b.add(totals[half], quantized)
        place = x.at_offset(out[0], at * x.width)
        if fine is None:
            x.store(b.trunc(quantized, x.narrow_bytes), place)
        else:
            high = b.ashr(b.add(quantized, x.constant(x.integers, 2 ** (PLANE_BITS - 1))), shift)
            high = b.select(fine, high, quantized)
            low = b.select(fine, b.sub(quantized, b.shl(high, shift)), x.constant(x.integers, 0))
            x.store(b.trunc(high, x.narrow_bytes), place)
            x.store(b.trunc(low, x.narrow_bytes), x.at_offset(out[1], at * x.width))
    scale = b.fdiv(top, high_limit)
    if fine is not None:
        bits = b.and_(b.bitcast(scale, INT32), INT32(-2))
        scale = b.bitcast(b.or_(bits, b.zext(fine, INT32)), SINGLE)
    x.store(scale, scales)
    unit = b.fdiv(scale, units)
    halves = [x.reduce_sum(total) for total in totals]
    for at, total in enumerate((b.add(*halves), *halves)):
        x.store(b.fmul(unit, b.sitofp(total, SINGLE)), x.at_offset(scales, 4 * (at + 1)))
