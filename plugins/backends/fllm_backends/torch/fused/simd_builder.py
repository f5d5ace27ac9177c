"""LLVM's vector instructions, which numba has no words for, on as many lanes as a register holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba import extending, types
from numba.core import cgutils

intrinsic: Any = extending.intrinsic
"""numba's: its type does not know that the first parameter is not passed."""

BYTE, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
SINGLE, HALF = ir.FloatType(), ir.HalfType()

DOT_TAKES_BYTES = llvm_version_info[0] >= 22
"""LLVM 22 changed the type of ``vpdpbusd``'s factors."""

Emit = Callable[..., None]
"""Takes `Lanes` and the values of the arguments: addresses, strides in bytes, counts."""


def procedure(width: int) -> Callable[[Emit], Any]:
    """Make ``emit(lanes, *arguments)`` a function of one tuple of integers, without a result."""

    def decorate(emit: Emit) -> Any:
        @intrinsic
        def kernel(typingctx: Any, arguments: Any) -> Any:  # noqa: ARG001
            def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                given = cgutils.unpack_tuple(builder, values[0])
                wanted = [
                    context.cast(builder, value, kind, types.intp)
                    for value, kind in zip(given, signature.args[0], strict=True)
                ]
                emit(Lanes(builder, width), *wanted)
                return context.get_dummy_value()

            return types.void(arguments), codegen

        return kernel

    return decorate


class Lanes:
    """Emits instructions on vectors of ``width`` 32-bit lanes."""

    def __init__(self, builder: Any, width: int) -> None:
        self.builder = builder
        self.width = width
        self.floats = ir.VectorType(SINGLE, width)
        self.integers = ir.VectorType(INT32, width)
        self.bytes = ir.VectorType(BYTE, 4 * width)
        self.narrow = ir.VectorType(BYTE, width)
        self.shorts = ir.VectorType(INT16, 2 * width)
        self.halves = ir.VectorType(HALF, width)

    def integer(self, value: int) -> Any:
        """A constant."""
        return ir.Constant(INT64, value)

    def all(self, kind: Any, value: float) -> Any:
        """A constant in all lanes of a vector."""
        if kind.element is SINGLE:
            value = float(np.float32(value))
        return ir.Constant(kind, [value] * kind.count)

    def step(self, base: Any, stride: Any, count: int) -> Any:
        """The address ``count`` strides after ``base``."""
        return self.builder.add(base, self.builder.mul(stride, self.integer(count)))

    def after(self, base: Any, count: int) -> Any:
        """The address so many bytes after ``base``."""
        return self.builder.add(base, self.integer(count))

    def load(self, at: Any, kind: Any = None) -> Any:
        """What lies at an address."""
        return self.builder.load(self._pointer(at, kind or self.floats), align=1)

    def load_half(self, at: Any) -> Any:
        """The float16 at an address, as float32."""
        return self.builder.fpext(self.load(at, self.halves), self.floats)

    def prefetch(self, at: Any) -> None:
        """Let what lies at an address be brought into the cache."""
        pointer = self.builder.inttoptr(at, BYTE.as_pointer())
        options = (ir.Constant(INT32, value) for value in (0, 3, 1))  # to read, keep it, data
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, *options)

    def store(self, value: Any, at: Any) -> None:
        """Write to an address."""
        self.builder.store(value, self._pointer(at, value.type), align=1)

    def spread(self, at: Any, kind: Any = None) -> Any:
        """The number at an address, in all lanes."""
        kind = kind or self.floats
        return self.splat(self.load(at, kind.element), kind)

    def splat(self, one: Any, kind: Any) -> Any:
        """A value in all lanes."""
        empty = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(empty, one, ir.Constant(INT32, 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(INT32, kind.count), None))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``."""
        return self.call(f"llvm.fma.v{self.width}f32", self.floats, a, b, c)

    def dot(self, total: Any, unsigned: Any, signed: Any) -> Any:
        """Add to each int32 the products of its four bytes."""
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.width}"
        kind = unsigned.type if DOT_TAKES_BYTES else self.integers
        both = (self.builder.bitcast(vector, kind) for vector in (unsigned, signed))
        return self.call(name, self.integers, total, *both)

    def multiply_pairs(self, unsigned: Any, signed: Any) -> Any:
        """Products of bytes, added in pairs to int16 (256 bits)."""
        return self.call("llvm.x86.avx2.pmadd.ub.sw", self.shorts, unsigned, signed)

    def add_pairs(self, a: Any, b: Any) -> Any:
        """Products of int16, added in pairs to int32 (256 bits)."""
        return self.call("llvm.x86.avx2.pmadd.wd", self.integers, a, b)

    def add_neighbours(self, a: Any, b: Any) -> Any:
        """Sums of two neighbouring int32, of both in turn by 128 bits (256 bits)."""
        return self.call("llvm.x86.avx2.phadd.d", self.integers, a, b)

    def pick(self, vector: Any, lanes: Iterable[int]) -> Any:
        """Some lanes of a vector."""
        places = [ir.Constant(INT32, lane) for lane in lanes]
        mask = ir.Constant(ir.VectorType(INT32, len(places)), places)
        return self.builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

    def larger(self, a: Any, b: Any) -> Any:
        """Lane by lane."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def largest(self, vector: Any) -> Any:
        """Of the lanes."""
        return self.call(f"llvm.vector.reduce.fmax.v{self.width}f32", SINGLE, vector, fastmath=("nnan",))

    def sum(self, vector: Any) -> Any:
        """Of the lanes, integers or floats."""
        if vector.type == self.integers:
            return self.call(f"llvm.vector.reduce.add.v{self.width}i32", INT32, vector)
        zero = ir.Constant(SINGLE, 0.0)
        name = f"llvm.vector.reduce.fadd.v{self.width}f32"
        return self.call(name, SINGLE, zero, vector, fastmath=("reassoc",))

    def absolute(self, vector: Any) -> Any:
        """Without the signs."""
        return self.call(f"llvm.fabs.v{self.width}f32", self.floats, vector)

    def exponential(self, x: Any) -> Any:
        """e^x to 1e-7 relative for x up to 88; 0 below -87.

        Cody and Waite's reduction with the polynomial of Cephes' ``expf``.
        """
        b, floats, integers = self.builder, self.floats, self.integers
        low, high = self.all(floats, -87.0), self.all(floats, 88.0)
        vanishes = b.fcmp_ordered("<", x, low)
        x = b.select(b.fcmp_ordered(">", x, high), high, self.larger(x, low))
        # Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
        magic = self.all(floats, 12582912.0)
        shifted = self.fma(x, self.all(floats, 1.44269504), magic)
        n = b.fsub(shifted, magic)
        r = self.fma(n, self.all(floats, -0.693359375), x)
        r = self.fma(n, self.all(floats, 2.12194440e-4), r)
        p = self.all(floats, 1.9875691500e-4)
        for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
            p = self.fma(p, r, self.all(floats, c))
        p = self.fma(b.fmul(p, r), r, b.fadd(r, self.all(floats, 1.0)))
        exponent = b.add(b.bitcast(shifted, integers), self.all(integers, 127))
        power = b.bitcast(b.shl(exponent, self.all(integers, 23)), floats)
        return b.select(vanishes, self.all(floats, 0.0), b.fmul(p, power))

    def loop(
        self, end: Any, step: int, totals: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
    ) -> list[Any]:
        """``totals = body(i, totals)`` for i = 0, step, ... before ``end``, at least once."""
        builder, before = self.builder, self.builder.basic_block
        inside, after = builder.append_basic_block("inside"), builder.append_basic_block("after")
        builder.branch(inside)
        builder.position_at_end(inside)
        index = builder.phi(INT64)
        index.add_incoming(self.integer(0), before)
        running = [builder.phi(total.type) for total in totals]
        for phi, total in zip(running, totals, strict=True):
            phi.add_incoming(total, before)
        new = body(index, running)
        following = builder.add(index, self.integer(step))
        last = builder.basic_block
        index.add_incoming(following, last)
        for phi, total in zip(running, new, strict=True):
            phi.add_incoming(total, last)
        builder.cbranch(builder.icmp_signed("<", following, end), inside, after)
        builder.position_at_end(after)
        return new

    def call(self, name: str, result: Any, *arguments: Any, fastmath: Sequence[str] = ()) -> Any:
        """One of LLVM's own functions."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, arguments, fastmath=fastmath)

    def _pointer(self, at: Any, kind: Any) -> Any:
        return self.builder.inttoptr(at, kind.as_pointer())
