"""Detect the vector instructions that the kernels are compiled for."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import NamedTuple

import numba
from llvmlite.binding import get_host_cpu_features

from fllm_backends.torch.fused.arm_features import IS_ARM, compiled_features


class Multiply(StrEnum):
    """The instruction that multiplies bytes."""

    PMADDUBSW = "pmaddubsw"
    """AVX2: adds two products to int16."""
    VPDPBUSD = "vpdpbusd"
    """VNNI: adds four products to int32."""
    SMULL = "smull"
    """Every 64-bit Arm processor: one product in int16."""
    SDOT = "sdot"
    """Arm's ``dotprod``: adds four products to int32."""
    USMMLA = "usmmla"
    """Arm's ``i8mm``: multiplies matrices of [2, 8] bytes."""


class Target(NamedTuple):
    """A set of vector instructions."""

    width: int
    """Floats in a vector: of one register, or of two of NEON's."""
    multiply: Multiply
    bfloat: bool = False
    """Whether an instruction multiplies pairs of bfloat16."""

    @property
    def signed(self) -> bool:
        """Whether the instruction takes signed weights only."""
        return self.multiply in (Multiply.SMULL, Multiply.SDOT)


AVX2, VNNI, AVX512, AVX512_BF16 = (
    Target(8, Multiply.PMADDUBSW),
    Target(8, Multiply.VPDPBUSD),
    Target(16, Multiply.VPDPBUSD),
    Target(16, Multiply.VPDPBUSD, bfloat=True),
)
NEON, DOTPROD, I8MM = Target(8, Multiply.SMULL), Target(8, Multiply.SDOT), Target(8, Multiply.USMMLA)


@cache
def targets() -> tuple[Target, ...]:
    """Return the targets that this processor supports, best first; none without AVX2 or NEON."""
    has = _features()
    if IS_ARM:
        dot = has("dotprod")
        return (I8MM,) * (dot and has("i8mm")) + (DOTPROD,) * dot + (NEON,)
    if not all(map(has, ("avx2", "fma", "f16c"))):
        return ()
    wide = all(map(has, ("avx512f", "avx512bw", "avx512vl", "avx512vnni")))
    return (
        (AVX512_BF16,) * (wide and has("avx512bf16"))
        + (AVX512,) * wide
        + (VNNI,) * (wide or has("avxvnni"))
        + (AVX2,)
    )


def _features() -> Callable[[str], bool]:
    """Return a test for the features that numba compiles for: the processor's, or ``NUMBA_CPU_FEATURES``."""
    if IS_ARM:
        return compiled_features().__contains__
    if names := numba.config.CPU_FEATURES:  # type: ignore[attr-defined]
        return frozenset(names.replace("+", "").split(",")).__contains__
    host_features = get_host_cpu_features()
    return lambda name: bool(host_features.get(name, False))


TARGET = (*targets(), AVX2)[0]
"""The target that the kernels are compiled for."""
