"""Compile the kernels with numba, without the GIL, and keep them for later starts."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba

from fllm_backends.checkpoints.cache import LOCK, cache_directory, is_intact, write_checksums

MAX_VERSIONS = 3
"""Versions of the kernels to keep, including this one: a machine may run several versions of this package."""
MIN_FREE_BYTES = 64 * 1024**2
"""Free disk space below which kernels are compiled at each start and none are kept."""


@cache
def _cache_directory() -> Path | None:
    """Return the directory of this version of the sources; ``None`` if nothing can be kept.

    numba itself only checks the source file that contains a kernel.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.blake2b(b"".join(source.read_bytes() for source in sources), digest_size=8)
    directory = cache_directory() / "kernels" / digest.hexdigest()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory)
        room = shutil.disk_usage(directory).free
    except OSError:
        return None
    _remove_old_versions(directory)
    return directory if os.access(directory, os.W_OK) and room >= MIN_FREE_BYTES else None


def _remove_old_versions(current: Path) -> None:
    """Remove all but this version and the ones used last."""
    with suppress(OSError):
        others = [each for each in current.parent.iterdir() if each != current]
        others.sort(key=lambda each: each.stat().st_mtime, reverse=True)
        for version in others[MAX_VERSIONS - 1 :]:
            shutil.rmtree(version, ignore_errors=True)


def kernel(*, fastmath: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function at its first call and keeps the result for later starts.

    ``fastmath`` lets LLVM reorder sums.
    """
    directory = _cache_directory()
    numba.config.CACHE_DIR = str(directory or "")  # type: ignore[attr-defined]
    decorator: Callable[[Callable[..., Any]], Any] = numba.njit(
        nogil=True, cache=directory is not None, fastmath=fastmath
    )
    return decorator


@contextmanager
def compile_lock() -> Generator[None]:
    """Keep other processes from compiling at the same time, and discard damaged kernels.

    numba numbers the results of a kernel without a lock. Two processes could give the same number to
    different results, and each later start would compute with the wrong one. numba also runs the code that it
    finds, so a damaged file could crash the process.
    """
    directory = _cache_directory()
    if directory is None:
        yield
        return
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_intact(directory):
            _remove_kernels(directory)
        yield
        with suppress(OSError):
            write_checksums(directory)


def _remove_kernels(directory: Path) -> None:
    """Remove the files but not the directories, which numba has already created."""
    for file in directory.rglob("*"):
        if file.is_file() and file.name != LOCK:
            file.unlink(missing_ok=True)
