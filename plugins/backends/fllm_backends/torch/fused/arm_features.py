"""Detect the vector instructions of 64-bit Arm processors, and let numba use them."""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

import numba

IS_ARM = platform.machine().lower() in {"aarch64", "arm64"}

HWCAP, HWCAP2 = 16, 26
"""Keys of Linux's ``getauxval``: what the kernel reports about the processor."""
LINUX_BITS = {"dotprod": (HWCAP, 20), "i8mm": (HWCAP2, 13)}
"""Bits of Linux's ``asm/hwcap.h``, by LLVM's name of the feature."""
MACOS_NAMES = {"dotprod": b"hw.optional.arm.FEAT_DotProd", "i8mm": b"hw.optional.arm.FEAT_I8MM"}


def compiled_features() -> frozenset[str]:
    """Return the features that numba compiles for: the processor's, or ``NUMBA_CPU_FEATURES``.

    LLVM derives these features from the name of the processor only, and it does not know every name. So they
    are added to numba's, unless numba has compiled something before.
    """
    from numba.core.codegen import get_host_cpu_features
    from numba.core.registry import cpu_target

    if numba.config.CPU_FEATURES is None:  # type: ignore[attr-defined]
        names = [get_host_cpu_features(), *(f"+{name}" for name in detect_features())]
        numba.config.CPU_FEATURES = ",".join(filter(None, names))  # type: ignore[attr-defined]
    context: Any = cpu_target.target_context
    *_, compiled = context.codegen().magic_tuple()
    return frozenset(compiled.replace("+", "").split(","))


def detect_features() -> tuple[str, ...]:
    """Return which of the features ``dotprod`` and ``i8mm`` this processor has. It reads no file."""
    library = ctypes.CDLL(None)
    if sys.platform == "darwin":
        return tuple(name for name, key in MACOS_NAMES.items() if _sysctl(library, key))
    library.getauxval.restype, library.getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return tuple(name for name, (key, bit) in LINUX_BITS.items() if library.getauxval(key) >> bit & 1)


def _sysctl(library: ctypes.CDLL, name: bytes) -> int:
    """Return a number that macOS knows by name; 0 if it does not know it."""
    value = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    library.sysctlbyname(name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    return value.value
