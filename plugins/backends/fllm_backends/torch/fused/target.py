"""Detect the vector instructions that the kernels are compiled for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numba
from llvmlite.binding import get_host_cpu_features


class Target(NamedTuple):
    """A set of vector instructions."""

    width: int
    """Floats in a register."""
    dot: bool
    """Whether ``vpdpbusd`` exists: four products of bytes, added to int32, in one instruction."""


AVX2, VNNI, AVX512 = Target(8, dot=False), Target(8, dot=True), Target(16, dot=True)


@cache
def targets() -> tuple[Target, ...]:
    """Return the targets that this processor supports, best first; none without AVX2."""
    has = _features()
    if not all(map(has, ("avx2", "fma", "f16c"))):
        return ()
    wide = all(map(has, ("avx512f", "avx512bw", "avx512vl", "avx512vnni")))
    return (AVX512,) * wide + (VNNI,) * (wide or has("avxvnni")) + (AVX2,)


def _features() -> Callable[[str], bool]:
    """Return a test for the features that numba compiles for: the processor's, or ``NUMBA_CPU_FEATURES``."""
    if names := numba.config.CPU_FEATURES:  # type: ignore[attr-defined]
        return frozenset(names.replace("+", "").split(",")).__contains__
    host_features = get_host_cpu_features()
    return lambda name: bool(host_features.get(name, False))


TARGET = (*targets(), AVX2)[0]
"""The target that the kernels are compiled for."""
