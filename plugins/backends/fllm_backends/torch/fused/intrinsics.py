"""The inner loops: tiles of dot products, keys and values of attention, e^x, and a barrier's words."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fllm_backends.torch.fused.lanes import (
    FLOATS,
    INT32,
    INT64,
    LANES,
    NARROW,
    SINGLE,
    WIDE,
    Lanes,
    intrinsic,
    of_five,
    of_six,
)
from fllm_backends.torch.fused.packing import GROUP, PACKED


def _tile(rows: int, columns: int) -> Any:
    """``tile(a, a_stride, w, s, groups, out)``: dot products of int16 activations with packed int8 weights.

    ``w`` and ``s`` point at the weights and scales of the first column, ``out`` at ``rows * columns`` floats.
    """

    def emit(lanes: Lanes, a: Any, a_stride: Any, w: Any, s: Any, groups: Any, out: Any) -> None:
        b = lanes.builder
        rows_at = [lanes.step(a, a_stride, row) for row in range(rows)]
        columns_at = [lanes.step(w, lanes.integer(GROUP), column) for column in range(columns)]

        def body(group: Any, totals: list[Any]) -> list[Any]:
            sums: list[Any] = [None] * len(totals)
            for part in range(0, GROUP, LANES):
                packed = b.add(b.mul(group, lanes.integer(GROUP * PACKED)), lanes.integer(part))
                weights = [b.sext(lanes.load(at, packed, NARROW), WIDE) for at in columns_at]
                place = b.shl(
                    b.add(b.mul(group, lanes.integer(GROUP)), lanes.integer(part)), lanes.integer(1)
                )
                for row, at in enumerate(rows_at):
                    x = lanes.load(at, place, WIDE)
                    for column, weight in enumerate(weights):
                        i, product = row * columns + column, lanes.multiply_add(x, weight)
                        sums[i] = product if sums[i] is None else b.add(sums[i], product)
            first = b.mul(group, lanes.integer(4 * PACKED))
            scales = [
                lanes.spread(lanes.load(s, b.add(first, lanes.integer(4 * c)), SINGLE))
                for c in range(columns)
            ]
            return [
                lanes.fma(b.sitofp(sums[i], FLOATS), scales[i % columns], total)
                for i, total in enumerate(totals)
            ]

        found = lanes.loop(groups, 1, [lanes.zeros(FLOATS)] * (rows * columns), body)
        for i, total in enumerate(found):
            lanes.store(lanes.sum(total), out, lanes.integer(4 * i))

    return of_six(emit)


def _keys(count: int) -> Any:
    """``keys(query, key, stride, bytes, out)``: one query times ``count`` keys, to as many floats."""

    def emit(lanes: Lanes, query: Any, key: Any, stride: Any, size: Any, out: Any) -> None:
        keys = [lanes.step(key, stride, i) for i in range(count)]

        def body(offset: Any, totals: list[Any]) -> list[Any]:
            q = lanes.load(query, offset)
            return [lanes.fma(q, lanes.load(k, offset), t) for k, t in zip(keys, totals, strict=True)]

        for i, total in enumerate(lanes.loop(size, 32, [lanes.zeros(FLOATS)] * count, body)):
            lanes.store(lanes.sum(total), out, lanes.integer(4 * i))

    return of_five(emit)


def _values(count: int) -> Any:
    """``values(out, value, stride, bytes, weights)``: add ``count`` values times their weights to ``out``."""

    def emit(lanes: Lanes, out: Any, value: Any, stride: Any, size: Any, weights: Any) -> None:
        values = [lanes.step(value, stride, i) for i in range(count)]
        scales = [lanes.spread(lanes.load(weights, lanes.integer(4 * i), SINGLE)) for i in range(count)]

        def body(offset: Any, _: list[Any]) -> list[Any]:
            total = lanes.load(out, offset)
            for scale, at in zip(scales, values, strict=True):
                total = lanes.fma(scale, lanes.load(at, offset), total)
            lanes.store(total, out, offset)
            return []

        lanes.loop(size, 32, [], body)

    return of_five(emit)


tile_4x2, tile_1x4 = _tile(4, 2), _tile(1, 4)
keys_4, keys_1 = _keys(4), _keys(1)
values_4, values_1 = _values(4), _values(1)


@intrinsic
def emit_exponential(typingctx: Any, x: Any) -> Any:  # noqa: ARG001
    """e^x to 1e-7 relative, for x cut to -87 ... 88, in operations that LLVM vectorizes.

    Cody and Waite's reduction with the polynomial of Cephes' ``expf``.
    """

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        def constant(value: float) -> Any:
            return ir.Constant(SINGLE, float(np.float32(value)))

        def fused(a: Any, b: Any, c: Any) -> Any:
            return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

        low, high = constant(-87.0), constant(88.0)
        x = builder.select(builder.fcmp_ordered("<", values[0], low), low, values[0])
        x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
        # Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
        magic = constant(12582912.0)
        shifted = builder.fadd(builder.fmul(x, constant(1.44269504)), magic)
        n = builder.fsub(shifted, magic)
        r = fused(n, constant(2.12194440e-4), fused(n, constant(-0.693359375), x))
        p = constant(1.9875691500e-4)
        for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = fused(p, r, constant(c))
        p = fused(builder.fmul(p, r), r, builder.fadd(r, constant(1.0)))
        exponent = builder.add(builder.bitcast(shifted, INT32), ir.Constant(INT32, 127))
        power = builder.bitcast(builder.shl(exponent, ir.Constant(INT32, 23)), SINGLE)
        return builder.fmul(p, power)

    return types.float32(types.float32), codegen


@intrinsic
def atomic_add(typingctx: Any, address: Any, value: Any) -> Any:  # noqa: ARG001
    """Add to the int64 at an address; gives what stood there."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        return builder.atomic_rmw(
            "add", builder.inttoptr(values[0], INT64.as_pointer()), values[1], "acq_rel"
        )

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def atomic_load(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
    """The int64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        return builder.load_atomic(builder.inttoptr(values[0], INT64.as_pointer()), "acquire", 8)

    return types.intp(types.intp), codegen


def _procedure(name: str, result: Any) -> Any:
    @intrinsic
    def call(typingctx: Any) -> Any:  # noqa: ARG001
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, []), name)
            builder.call(function, [])
            return context.get_dummy_value()

        return types.void(), codegen

    return call


pause = _procedure("llvm.x86.sse2.pause", ir.VoidType())
"""Tells the processor that this loop only waits."""
give_way = _procedure("sched_yield", INT32)
"""Lets another thread have this core: the one that is waited for may need it."""
