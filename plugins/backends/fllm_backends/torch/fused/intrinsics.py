"""Operations that numba lacks: addresses, float16, and synchronisation of threads."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fllm_backends.torch.fused.arm_features import IS_ARM
from fllm_backends.torch.fused.simd_builder import BYTE, HALF, INT16, INT32, INT64, SINGLE, intrinsic

MAX_HALF = 65504.0
"""Largest finite float16."""
MAX_BFLOAT = float.fromhex("0x1.fep127")
"""Largest finite bfloat16."""


@intrinsic
def address(typingctx: Any, array: Any) -> Any:  # noqa: ARG001
    """Return the address of an array's first element."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array_value = context.make_array(signature.args[0])(context, builder, values[0])
        return builder.ptrtoint(array_value.data, INT64)

    return types.intp(array), codegen


@intrinsic
def round_to_half(typingctx: Any, x: Any) -> Any:  # noqa: ARG001
    """Round a float32 to the nearest float16; return it as float32."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        return builder.fpext(builder.fptrunc(values[0], HALF), SINGLE)

    return types.float32(types.float32), codegen


@intrinsic
def half_bits(typingctx: Any, x: Any) -> Any:  # noqa: ARG001
    """Return the bits of a number in float16; of the nearest finite one if it is too large or NaN.

    A page of the KV cache is reused by other sequences, which multiply what they do not attend to by 0: an
    infinity there would become a NaN in their results.
    """

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        x, most = values[0], SINGLE(MAX_HALF)
        x = builder.select(builder.fcmp_ordered("<", x, most), x, most)
        least = SINGLE(-MAX_HALF)
        x = builder.select(builder.fcmp_ordered(">", x, least), x, least)
        return builder.bitcast(builder.fptrunc(x, HALF), INT16)

    return types.uint16(types.float32), codegen


@intrinsic
def bfloat_bits(typingctx: Any, x: Any) -> Any:  # noqa: ARG001
    """Return the bits of a number in bfloat16, rounded to the nearest, of two to the even one.

    An infinity or NaN becomes a finite number, for the reason that `half_bits` gives.
    """

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        x, most = values[0], SINGLE(MAX_BFLOAT)
        x = builder.select(builder.fcmp_ordered("<", x, most), x, most)
        least = SINGLE(-MAX_BFLOAT)
        x = builder.select(builder.fcmp_ordered(">", x, least), x, least)
        bits = builder.bitcast(x, INT32)
        last = builder.and_(builder.lshr(bits, INT32(16)), INT32(1))
        rounded = builder.add(bits, builder.add(last, INT32(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, INT32(16)), INT16)

    return types.uint16(types.float32), codegen


@intrinsic
def load_half_at(typingctx: Any, at: Any) -> Any:  # noqa: ARG001
    """Load the float16 at an address as float32."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        return builder.fpext(builder.load(builder.inttoptr(values[0], HALF.as_pointer()), align=2), SINGLE)

    return types.float32(types.intp), codegen


@intrinsic
def load_byte_at(typingctx: Any, at: Any) -> Any:  # noqa: ARG001
    """Load the byte at an address."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        return builder.load(builder.inttoptr(values[0], BYTE.as_pointer()))

    return types.uint8(types.intp), codegen


@intrinsic
def atomic_add(typingctx: Any, at: Any, value: Any) -> Any:  # noqa: ARG001
    """Add to the int64 at an address; return its previous value."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        return builder.atomic_rmw(
            "add", builder.inttoptr(values[0], INT64.as_pointer()), values[1], "acq_rel"
        )

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def atomic_load(typingctx: Any, at: Any) -> Any:  # noqa: ARG001
    """Load the int64 at an address."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
        return builder.load_atomic(builder.inttoptr(values[0], INT64.as_pointer()), "acquire", 8)

    return types.intp(types.intp), codegen


def _void_call(name: str, result: Any, *arguments: Any) -> Any:
    @intrinsic
    def call(typingctx: Any) -> Any:  # noqa: ARG001
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            kind = ir.FunctionType(result, [argument.type for argument in arguments])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
            return context.get_dummy_value()

        return types.void(), codegen

    return call


if IS_ARM:
    # ``yield`` does nothing on most processors; a barrier waits about as long as x86's ``pause``.
    pause = _void_call("llvm.aarch64.isb", ir.VoidType(), INT32(15))
else:
    pause = _void_call("llvm.x86.sse2.pause", ir.VoidType())
"""Hint to the processor that this is a spin loop."""
sched_yield = _void_call("sched_yield", INT32)
"""Yield the core to another thread: the one that is waited for may need it."""
