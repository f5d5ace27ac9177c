"""The machine of a comparison: its processor, and how fast its threads read memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

FEATURES = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
)
AVX2 = {
    "NUMBA_CPU_NAME": "znver3",
    "NUMBA_CPU_FEATURES": "+avx2,+avx,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,+sse4.2,+sse4.1,+ssse3,+sse3",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
"""Environment variables that keep ours to AVX2."""


def describe() -> str:
    """Return the processor's name, its cores, and those of its features that matter here."""
    fields = dict(
        (part.strip() for part in line.split(":", 1))
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        if ":" in line
    )
    known = (fields.get("flags") or fields.get("Features") or "").split()
    features = ", ".join(name for name in FEATURES if name in known)
    name = fields.get("model name") or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores ({features})"


def bandwidth(threads: int) -> float:
    """Return the bytes/s that threads read from memory."""
    return in_new_process(_read_bandwidth, threads)


def _read_bandwidth(threads: int) -> float:
    from decoders import read_bandwidth

    return read_bandwidth(threads)


def available_bytes() -> int:
    """Return how much memory new processes can take."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def in_new_process(function: Callable[..., T], *arguments: Any, **variables: str) -> T:
    """Call a function of a module in a process of its own, with more environment variables."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(before)
