"""Emit LLVM vector instructions, which numba does not offer, as wide as the registers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba import extending, types
from numba.core import cgutils

intrinsic: Any = extending.intrinsic
"""numba's decorator; its type does not express that the first parameter is not passed."""

BIT, BYTE, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
SINGLE, HALF = ir.FloatType(), ir.HalfType()


class BFloatType(ir.types._BaseFloatType):  # type: ignore[misc]
    """The type of bfloat16 numbers, which llvmlite lacks."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


BFloatType._create_instance()
BFLOAT = BFloatType()

DOT_TAKES_BYTES = llvm_version_info[0] >= 22
"""Whether ``vpdpbusd`` takes vectors of bytes: LLVM 22 changed the type."""

Emitter = Callable[..., None]
"""Emits a function's body, given a `SimdBuilder` and the arguments: addresses, strides in bytes, counts."""


def simd_function(width: int) -> Callable[[Emitter], Any]:
    """Return a decorator that turns an emitter into a function of one tuple of integers, without a result."""

    def decorate(emit: Emitter) -> Any:
        @intrinsic
        def kernel(typingctx: Any, arguments: Any) -> Any:  # noqa: ARG001
            def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                emit(SimdBuilder(builder, width), *unpack_integers(context, builder, signature, values))
                return context.get_dummy_value()

            return types.void(arguments), codegen

        return kernel

    return decorate


def unpack_integers(context: Any, builder: Any, signature: Any, values: Any) -> list[Any]:
    """Return the elements of the last argument, a tuple of integers, as int64."""
    elements = cgutils.unpack_tuple(builder, values[-1])
    return [
        context.cast(builder, value, kind, types.intp)
        for value, kind in zip(elements, signature.args[-1], strict=True)
    ]


class SimdBuilder:
    """Emits instructions on vectors of ``width`` 32-bit lanes."""

    def __init__(self, builder: Any, width: int) -> None:
        self.builder = builder
        self.width = width
        self.floats = ir.VectorType(SINGLE, width)
        self.integers = ir.VectorType(INT32, width)
        self.bytes = ir.VectorType(BYTE, 4 * width)
        self.narrow_bytes = ir.VectorType(BYTE, width)
        self.shorts = ir.VectorType(INT16, 2 * width)
        self.halves = ir.VectorType(HALF, width)
        self.bfloats = ir.VectorType(BFLOAT, 2 * width)

    def int64(self, value: int) -> Any:
        """Return an int64 constant."""
        return ir.Constant(INT64, value)

    def constant(self, kind: Any, value: float) -> Any:
        """Return a vector constant with the same value in all lanes."""
        if kind.element is SINGLE:
            value = float(np.float32(value))
        return ir.Constant(kind, [value] * kind.count)

    def at_stride(self, base: Any, stride: Any, count: int) -> Any:
        """Return the address ``count`` strides after ``base``."""
        return self.builder.add(base, self.builder.mul(stride, self.int64(count)))

    def at_offset(self, base: Any, count: int) -> Any:
        """Return the address ``count`` bytes after ``base``."""
        return self.builder.add(base, self.int64(count))

    def load(self, at: Any, kind: Any = None) -> Any:
        """Load a value from an address; by default a vector of floats."""
        return self.builder.load(self._pointer(at, kind or self.floats), align=1)

    def load_half(self, at: Any) -> Any:
        """Load float16 values from an address as float32."""
        return self.builder.fpext(self.load(at, self.halves), self.floats)

    def prefetch(self, at: Any) -> None:
        """Prefetch the cache line at an address."""
        pointer = self.builder.inttoptr(at, BYTE.as_pointer())
        options = (ir.Constant(INT32, value) for value in (0, 3, 1))  # read, keep in all caches, data
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, *options)

    def store(self, value: Any, at: Any) -> None:
        """Store a value at an address."""
        self.builder.store(value, self._pointer(at, value.type), align=1)

    def load_broadcast(self, at: Any, kind: Any = None) -> Any:
        """Load the number at an address into all lanes."""
        kind = kind or self.floats
        return self.splat(self.load(at, kind.element), kind)

    def load_int64(self, at: Any) -> Any:
        """Load an int64 from an address."""
        return self.load(at, INT64)

    def first_lane(self, vector: Any) -> Any:
        """Return the first lane of a vector."""
        return self.builder.extract_element(vector, ir.Constant(INT32, 0))

    def splat(self, value: Any, kind: Any) -> Any:
        """Return a vector with a value in all lanes."""
        empty = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(INT32, 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(INT32, kind.count), None))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a * b + c``, rounded once."""
        return self.call(f"llvm.fma.v{self.width}f32", self.floats, a, b, c)

    def dot_bytes(self, total: Any, unsigned: Any, signed: Any) -> Any:
        """Add to each int32 the sum of the products of its four bytes (``vpdpbusd``)."""
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.width}"
        kind = unsigned.type if DOT_TAKES_BYTES else self.integers
        both = (self.builder.bitcast(vector, kind) for vector in (unsigned, signed))
        return self.call(name, self.integers, total, *both)

    def dot_bfloat(self, total: Any, a: Any, b: Any) -> Any:
        """Add to each float the products of two pairs of bfloat16 in 32 bits (``vdpbf16ps``, 512 bits)."""
        both = (self.builder.bitcast(vector, self.bfloats) for vector in (a, b))
        return self.call("llvm.x86.avx512bf16.dpbf16ps.512", self.floats, total, *both)

    def round_to_bfloat(self, first: Any, second: Any) -> Any:
        """Return the floats of two vectors rounded to bfloat16, in one (512 bits)."""
        return self.call("llvm.x86.avx512bf16.cvtne2ps2bf16.512", self.bfloats, second, first)

    def multiply_add_bytes(self, unsigned: Any, signed: Any) -> Any:
        """Multiply bytes and add pairs of products to int16 (``pmaddubsw``, 256 bits)."""
        return self.call("llvm.x86.avx2.pmadd.ub.sw", self.shorts, unsigned, signed)

    def multiply_add_int16(self, a: Any, b: Any) -> Any:
        """Multiply int16 and add pairs of products to int32 (``pmaddwd``, 256 bits)."""
        return self.call("llvm.x86.avx2.pmadd.wd", self.integers, a, b)

    def add_adjacent(self, a: Any, b: Any) -> Any:
        """Add neighbouring int32 of ``a`` and ``b`` in turn, for each 128 bits (``phaddd``, 256 bits)."""
        return self.call("llvm.x86.avx2.phadd.d", self.integers, a, b)

    def shuffle(self, vector: Any, lanes: Iterable[int], other: Any = None) -> Any:
        """Select lanes of a vector, or of two: those of the other one come after the vector's."""
        places = [ir.Constant(INT32, lane) for lane in lanes]
        mask = ir.Constant(ir.VectorType(INT32, len(places)), places)
        return self.builder.shuffle_vector(vector, other or ir.Constant(vector.type, ir.Undefined), mask)

    def split(self, vector: Any) -> list[Any]:
        """Return the parts of 128 bits of a vector."""
        lanes = 128 // vector.type.element.width
        return [self.shuffle(vector, range(at, at + lanes)) for at in range(0, vector.type.count, lanes)]

    def concatenate(self, parts: list[Any]) -> Any:
        """Return one vector of the lanes of all parts, a power of two."""
        if len(parts) == 1:
            return parts[0]
        middle = len(parts) // 2
        first, second = self.concatenate(parts[:middle]), self.concatenate(parts[middle:])
        return self.shuffle(first, range(2 * first.type.count), second)

    def maximum(self, a: Any, b: Any) -> Any:
        """Return the larger of each pair of lanes."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def reduce_max(self, vector: Any) -> Any:
        """Return the largest lane."""
        return self.call(f"llvm.vector.reduce.fmax.v{self.width}f32", SINGLE, vector, fastmath=("nnan",))

    def reduce_sum(self, vector: Any) -> Any:
        """Return the sum of the lanes, which are integers or floats."""
        if vector.type == self.integers:
            return self.call(f"llvm.vector.reduce.add.v{self.width}i32", INT32, vector)
        zero = ir.Constant(SINGLE, 0.0)
        name = f"llvm.vector.reduce.fadd.v{self.width}f32"
        return self.call(name, SINGLE, zero, vector, fastmath=("reassoc",))

    def abs(self, vector: Any) -> Any:
        """Return the absolute value of each lane."""
        return self.call(f"llvm.fabs.v{self.width}f32", self.floats, vector)

    def exp(self, x: Any) -> Any:
        """Return e^x to 1e-7 relative for x up to 88; 0 below -87.

        Uses Cody and Waite's range reduction with the polynomial of Cephes' ``expf``.
        """
        b, floats, integers = self.builder, self.floats, self.integers
        low, high = self.constant(floats, -87.0), self.constant(floats, 88.0)
        vanishes = b.fcmp_ordered("<", x, low)
        x = b.select(b.fcmp_ordered(">", x, high), high, self.maximum(x, low))
        # Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
        magic = self.constant(floats, 12582912.0)
        shifted = self.fma(x, self.constant(floats, 1.44269504), magic)
        n = b.fsub(shifted, magic)
        r = self.fma(n, self.constant(floats, -0.693359375), x)
        r = self.fma(n, self.constant(floats, 2.12194440e-4), r)
        p = self.constant(floats, 1.9875691500e-4)
        for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = self.fma(p, r, self.constant(floats, c))
        p = self.fma(b.fmul(p, r), r, b.fadd(r, self.constant(floats, 1.0)))
        exponent = b.add(b.bitcast(shifted, integers), self.constant(integers, 127))
        power = b.bitcast(b.shl(exponent, self.constant(integers, 23)), floats)
        return b.select(vanishes, self.constant(floats, 0.0), b.fmul(p, power))

    def exp_short(self, x: Any) -> Any:
        """Return e^x to 1e-4 relative for x up to 0; 0 below -87, and exactly 1 for 0.

        The polynomial is a minimax fit of 2^x between -0.5 and 0.5.
        """
        b, floats, integers = self.builder, self.floats, self.integers
        vanishes = b.fcmp_ordered("<", x, self.constant(floats, -87.0))
        magic, scale = self.constant(floats, 12582912.0), self.constant(floats, 1.44269504)
        shifted = self.fma(x, scale, magic)
        r = self.fma(x, scale, b.fneg(b.fsub(shifted, magic)))
        p = self.constant(floats, 0.05500893)
        for c in (0.24221097, 0.69328293, 1.0):
            p = self.fma(p, r, self.constant(floats, c))
        power = b.shl(b.bitcast(shifted, integers), self.constant(integers, 23))
        result = b.bitcast(b.add(b.bitcast(p, integers), power), floats)
        return b.select(vanishes, self.constant(floats, 0.0), result)

    def loop(
        self, end: Any, step: int, totals: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """Emit a loop of ``totals = body(i, totals)`` and return the totals.

        ``i`` counts from 0 in steps of ``step`` while it is below ``end``. The body runs at least once.
        """
        builder, before = self.builder, self.builder.basic_block
        inside, after = builder.append_basic_block("inside"), builder.append_basic_block("after")
        builder.branch(inside)
        builder.position_at_end(inside)
        index = builder.phi(INT64)
        index.add_incoming(self.int64(0), before)
        running = [builder.phi(total.type) for total in totals]
        for phi, total in zip(running, totals, strict=True):
            phi.add_incoming(total, before)
        new = body(index, running)
        following = builder.add(index, self.int64(step))
        last = builder.basic_block
        index.add_incoming(following, last)
        for phi, total in zip(running, new, strict=True):
            phi.add_incoming(total, last)
        builder.cbranch(builder.icmp_signed("<", following, end), inside, after)
        builder.position_at_end(after)
        return new

    def either(
        self, condition: Any, first: Callable[[], list[Any]], second: Callable[[], list[Any]]
    ) -> list[Any]:
        """Emit a branch, and return the results of ``first`` if the condition holds, else of ``second``."""
        builder = self.builder
        blocks = [builder.append_basic_block(name) for name in ("first", "second", "after")]
        builder.cbranch(condition, *blocks[:2])
        found = []
        for block, emit in zip(blocks[:2], (first, second), strict=True):
            builder.position_at_end(block)
            results = emit()
            found.append((results, builder.basic_block))
            builder.branch(blocks[2])
        builder.position_at_end(blocks[2])
        phis = [builder.phi(result.type) for result in found[0][0]]
        for results, block in found:
            for phi, result in zip(phis, results, strict=True):
                phi.add_incoming(result, block)
        return phis

    def call(self, name: str, result: Any, *arguments: Any, fastmath: Sequence[str] = ()) -> Any:
        """Call an LLVM intrinsic."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, arguments, fastmath=fastmath)

    def _pointer(self, at: Any, kind: Any) -> Any:
        return self.builder.inttoptr(at, kind.as_pointer())
