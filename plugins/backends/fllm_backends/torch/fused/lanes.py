"""LLVM instructions on eight floats or sixteen integers at a time, which numba has no words for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

intrinsic: Any = extending.intrinsic
"""numba's: its type does not know that the first parameter is not passed."""

INT16 = ir.IntType(16)
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
SINGLE = ir.FloatType()
FLOATS = ir.VectorType(SINGLE, 8)
SUMS = ir.VectorType(INT32, 8)
WIDE = ir.VectorType(INT16, 16)
NARROW = ir.VectorType(ir.IntType(8), 16)
LANES = 16
"""Products of one ``pmaddwd``."""


Emit = Callable[..., None]
"""Takes `Lanes` and the values of the arguments: addresses, strides in bytes, lengths."""


def of_five(emit: Emit) -> Any:
    """An intrinsic of five integers without a result; numba counts the parameters that it sees."""

    @intrinsic
    def kernel(typingctx: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:  # noqa: ARG001
        return _typed(emit, 5)

    return kernel


def of_six(emit: Emit) -> Any:
    """The same of six."""

    @intrinsic
    def kernel(typingctx: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:  # noqa: ARG001
        return _typed(emit, 6)

    return kernel


def _typed(emit: Emit, count: int) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        emit(Lanes(builder), *values)
        return context.get_dummy_value()

    return types.void(*[types.intp] * count), codegen


class Lanes:
    """Emits vector instructions."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def integer(self, value: int) -> Any:
        """A constant."""
        return ir.Constant(INT64, value)

    def zeros(self, kind: Any) -> Any:
        """A constant vector."""
        return ir.Constant(kind, None)

    def step(self, base: Any, stride: Any, count: int) -> Any:
        """The address ``count`` strides after ``base``."""
        return self.builder.add(base, self.builder.mul(stride, self.integer(count)))

    def load(self, base: Any, offset: Any, kind: Any = FLOATS) -> Any:
        """What lies at an address."""
        return self.builder.load(self._pointer(base, offset, kind), align=1)

    def store(self, value: Any, base: Any, offset: Any) -> None:
        """Write to an address."""
        self.builder.store(value, self._pointer(base, offset, value.type), align=1)

    def spread(self, one: Any) -> Any:
        """A float in all lanes."""
        empty = ir.Constant(FLOATS, ir.Undefined)
        first = self.builder.insert_element(empty, one, ir.Constant(INT32, 0))
        return self.builder.shuffle_vector(first, empty, self.zeros(SUMS))

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``."""
        return self._call("llvm.fma.v8f32", FLOATS, a, b, c)

    def multiply_add(self, a: Any, b: Any) -> Any:
        """Products of int16, summed in pairs to int32."""
        return self._call("llvm.x86.avx2.pmadd.wd", SUMS, a, b)

    def sum(self, vector: Any) -> Any:
        """Of the lanes."""
        zero = ir.Constant(SINGLE, 0.0)
        return self._call("llvm.vector.reduce.fadd.v8f32", SINGLE, zero, vector, fastmath=("reassoc",))

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
        index.add_incoming(following, inside)
        for phi, total in zip(running, new, strict=True):
            phi.add_incoming(total, inside)
        builder.cbranch(builder.icmp_signed("<", following, end), inside, after)
        builder.position_at_end(after)
        return new

    def _pointer(self, base: Any, offset: Any, kind: Any) -> Any:
        return self.builder.inttoptr(self.builder.add(base, offset), kind.as_pointer())

    def _call(self, name: str, result: Any, *arguments: Any, fastmath: Sequence[str] = ()) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, arguments, fastmath=fastmath)
