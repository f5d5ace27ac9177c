"""Dot products of packed weights with quantized activations, in the instructions of each processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir

from fllm_backends.torch.fused.formats import GROUP, PANEL
from fllm_backends.torch.fused.simd_builder import BYTE, INT16, INT32, INT64, SimdBuilder
from fllm_backends.torch.fused.target import Multiply, Target

QUADS = GROUP // 4
PLANE_BITS = 7
"""Bits of the second plane."""
SIGN_BIT = 128
"""What is subtracted from weights of 8 bits for instructions that multiply signed bytes only."""

Dot = Callable[[SimdBuilder, Any, list[Any], range], list[Any]]
"""Dot products of some quads of the weights of a group at an address with bytes of rows of activations."""
DotBytes = Callable[[SimdBuilder, Any, Any, Any, int], Any]
"""Adds to each int32 the sum of the products of its four bytes of weights with four activations.

Takes a builder, the int32, the weights, the address of a row of activations, and where the four are in it.
"""

SIXTEEN_BYTES, EIGHT_SHORTS = ir.VectorType(BYTE, 16), ir.VectorType(INT16, 8)
FOUR_INTEGERS, TWO_LONGS = ir.VectorType(INT32, 4), ir.VectorType(INT64, 2)


def dot_product(target: Target, bits: int) -> Dot:
    """Return the emitter for weights of some bits.

    The sums are those of the values of the weights; of 128 less if `Target.signed` and weights have 8 bits.
    """
    if target.multiply == Multiply.PMADDUBSW:
        return _dot_int16(bits)
    load = _load_signed_quad if target.signed and bits == 8 else partial(_load_quad, bits=bits)
    if target.multiply == Multiply.USMMLA:
        return _dot_pairs(load)
    return _dot_rows(load, DOT_BYTES[target.multiply])


LoadQuad = Callable[..., Any]
"""Loads a quad of each row, as bytes; takes a builder, the address of the group, and ``at``: which quad."""


def _dot_rows(load: LoadQuad, dot_bytes: DotBytes) -> Dot:
    """Use an instruction that adds four products, with two sums in parallel if there are few rows."""

    def sums(x: SimdBuilder, w: Any, rows: list[Any], quads: range) -> list[Any]:
        chains = 2 if len(rows) < 4 else 1
        totals = [[x.constant(x.integers, 0)] * chains for _ in rows]
        for at in quads:
            quad = load(x, w, at=at)
            for row, total in zip(rows, totals, strict=True):
                which = at % chains
                total[which] = dot_bytes(x, total[which], quad, row, 4 * at)
        return [total[0] if chains == 1 else x.builder.add(*total) for total in totals]

    return sums


def _dot_pairs(load: LoadQuad) -> Dot:
    """Use ``usmmla``, which multiplies 8 columns of 2 rows of weights with 2 rows of activations.

    A last single row is multiplied with ``usdot``.
    """
    dot_row = _dot_rows(load, _usdot)

    def sums(x: SimdBuilder, w: Any, rows: list[Any], quads: range) -> list[Any]:
        paired = len(rows) // 2 * 2
        totals = [[x.constant(FOUR_INTEGERS, 0)] * (x.width // 2) for _ in range(0, paired, 2)]
        for at in quads[::2] if paired else ():
            columns = _interleave(x, load(x, w, at=at), load(x, w, at=at + 1))
            for pair, total in enumerate(totals):
                activations = _load_pair(x, rows[2 * pair : 2 * pair + 2], 4 * at)
                for i, weights in enumerate(columns):
                    total[i] = _usmmla(x, total[i], weights, activations)
        results = [row for total in totals for row in _split_pair(x, total)]
        return results + (dot_row(x, w, rows[paired:], quads) if paired < len(rows) else [])

    return sums


def _interleave(x: SimdBuilder, first: Any, second: Any) -> list[Any]:
    """Return two neighbouring quads as vectors of 8 columns of 2 rows each."""
    b, lanes = x.builder, ((0, 4, 1, 5), (2, 6, 3, 7))
    results = []
    for both in zip(x.split(first), x.split(second), strict=True):
        numbers = [b.bitcast(part, FOUR_INTEGERS) for part in both]
        results += [b.bitcast(x.shuffle(numbers[0], places, numbers[1]), SIXTEEN_BYTES) for places in lanes]
    return results


def _load_pair(x: SimdBuilder, rows: list[Any], offset: int) -> Any:
    """Return eight activations of each of two rows."""
    vector = ir.Constant(TWO_LONGS, ir.Undefined)
    for lane, row in enumerate(rows):
        eight = x.load(x.at_offset(row, offset), INT64)
        vector = x.builder.insert_element(vector, eight, ir.Constant(INT32, lane))
    return x.builder.bitcast(vector, SIXTEEN_BYTES)


def _split_pair(x: SimdBuilder, totals: list[Any]) -> list[Any]:
    """Return the sums of each of two rows of activations, of which each vector has two for two weights."""
    tiles = list(zip(totals[::2], totals[1::2], strict=True))
    return [
        x.concatenate([x.shuffle(first, range(row, 8, 2), second) for first, second in tiles])
        for row in range(2)
    ]


def _vpdpbusd(x: SimdBuilder, total: Any, weights: Any, row: Any, offset: int) -> Any:
    return x.dot_bytes(total, weights, x.load_broadcast(x.at_offset(row, offset), x.integers))


NeonDot = Callable[[SimdBuilder, Any, Any, Any], Any]


def _neon(name: str) -> NeonDot:
    """Return an instruction that adds products of 16 bytes to four int32."""

    def emit(x: SimdBuilder, total: Any, weights: Any, activations: Any) -> Any:
        return x.call(f"llvm.aarch64.neon.{name}.v4i32.v16i8", FOUR_INTEGERS, total, weights, activations)

    return emit


def _by_register(emit: NeonDot) -> DotBytes:
    """Apply an instruction for 128 bits to each part of wider vectors.

    It can take four of the 16 activations of a register, so each of them is loaded once.
    """

    def dot_bytes(x: SimdBuilder, total: Any, weights: Any, row: Any, offset: int) -> Any:
        numbers = x.load(x.at_offset(row, offset // 16 * 16), FOUR_INTEGERS)
        four = x.builder.bitcast(x.shuffle(numbers, [offset % 16 // 4] * 4), SIXTEEN_BYTES)
        parts = zip(x.split(total), x.split(weights), strict=True)
        return x.concatenate([emit(x, *part, four) for part in parts])

    return dot_bytes


def _smull(x: SimdBuilder, total: Any, weights: Any, activations: Any) -> Any:
    """Multiply bytes to int16, and add four products to each int32.

    The sum of two products is below 2^15: the magnitude of an activation is at most 127.
    """
    b, halves = x.builder, []
    for at in (0, 8):
        both = (
            b.sext(x.shuffle(vector, range(at, at + 8)), EIGHT_SHORTS) for vector in (weights, activations)
        )
        halves.append(b.mul(*both))
    pairs = x.call("llvm.aarch64.neon.addp.v8i16", EIGHT_SHORTS, *halves)
    return b.add(total, x.call("llvm.aarch64.neon.saddlp.v4i32.v8i16", FOUR_INTEGERS, pairs))


_usdot, _usmmla = _by_register(_neon("usdot")), _neon("usmmla")
DOT_BYTES: dict[Multiply, DotBytes] = {
    Multiply.VPDPBUSD: _vpdpbusd,
    Multiply.SMULL: _by_register(_smull),
    Multiply.SDOT: _by_register(_neon("sdot")),
}
"""How each instruction multiplies a row of activations."""


def _dot_int16(bits: int) -> Dot:
    """Use ``pmaddubsw``, whose sums of eight pairs stay below 2^15 for weights of 4 bits.

    So other weights are split into their low 4 bits and the others.
    """

    def sums(x: SimdBuilder, w: Any, rows: list[Any], quads: range) -> list[Any]:
        b = x.builder
        halves = 1 if bits == 4 else 2
        totals: list[list[Any]] = [[None] * halves for _ in rows]
        for at in quads:
            parts = _load_quad_halves(x, w, bits, at)
            for row, total in zip(rows, totals, strict=True):
                four = x.load_broadcast(x.at_offset(row, 4 * at), x.integers)
                activations = b.bitcast(four, x.bytes)
                for half, part in enumerate(parts):
                    pair = x.multiply_add_bytes(part, activations)
                    total[half] = pair if total[half] is None else b.add(total[half], pair)
        weights = [x.constant(x.shorts, 16**half) for half in range(halves)]
        dot = [[x.multiply_add_int16(*both) for both in zip(total, weights, strict=True)] for total in totals]
        return [one[0] if halves == 1 else b.add(*one) for one in dot]

    return sums


def _load_signed_quad(x: SimdBuilder, w: Any, at: int) -> Any:
    """Load a quad of weights of 8 bits, with 128 subtracted from each: that changes the highest bit."""
    return x.builder.xor(_load_quad(x, w, 8, at), x.constant(x.bytes, SIGN_BIT))


def _load_quad(x: SimdBuilder, w: Any, bits: int, at: int) -> Any:
    """Load four consecutive weights of each row from a group, as bytes."""
    if bits == 8:
        return x.load(x.at_offset(w, at * 4 * PANEL), x.bytes)
    low = _low_bits(x, w, at)
    return low if bits == 4 else x.builder.or_(low, _high_bits(x, w, bits, at, position=4))


def _load_quad_halves(x: SimdBuilder, w: Any, bits: int, at: int) -> list[Any]:
    """Load four consecutive weights of each row from a group: their low 4 bits, and the others if any."""
    if bits == 8:
        quad = x.load(x.at_offset(w, at * 4 * PANEL), x.bytes)
        return [_move_bits(x, quad, 0, 15), _move_bits(x, quad, 4, 15)]
    if bits == 4:
        return [_low_bits(x, w, at)]
    return [_low_bits(x, w, at), _high_bits(x, w, bits, at, position=0)]


def _low_bits(x: SimdBuilder, w: Any, at: int) -> Any:
    """Load the low 4 bits of a quad."""
    return _move_bits(x, x.load(x.at_offset(w, at // 2 * 4 * PANEL), x.bytes), at % 2 * 4, 15)


def _high_bits(x: SimdBuilder, w: Any, bits: int, at: int, position: int) -> Any:
    """Load all but the low 4 bits of a quad, and move them to a position in their bytes."""
    high = bits - 4
    share = 8 // high  # quads of a byte
    line = x.load(x.at_offset(w, (QUADS // 2 + at // share) * 4 * PANEL), x.bytes)
    return _move_bits(x, line, at % share * high - position, (2**high - 1) << position)


def _move_bits(x: SimdBuilder, vector: Any, right: int, mask: int) -> Any:
    """Move bits to the right (to the left if negative) in their bytes, and mask them."""
    b = x.builder
    if right:
        shift = b.lshr if right > 0 else b.shl
        wide = shift(b.bitcast(vector, x.integers), x.constant(x.integers, abs(right)))
        vector = b.bitcast(wide, x.bytes)
    return b.and_(vector, x.constant(x.bytes, mask))
