"""How the kernels are compiled: without the GIL, once for all starts."""

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

KEPT = 3
"""Versions of the kernels that are kept, this one included: a machine may have more than one of ours."""
ROOM = 64 * 1024**2
"""Bytes; where a disk has less, kernels are compiled at each start, and nothing is kept."""


@cache
def _cache_directory() -> Path | None:
    """A place for each version of the sources: numba itself looks only at the one that holds the kernel."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.blake2b(b"".join(source.read_bytes() for source in sources), digest_size=8)
    directory = cache_directory() / "kernels" / digest.hexdigest()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory)
        room = shutil.disk_usage(directory).free
    except OSError:
        return None
    _remove_old(directory)
    return directory if os.access(directory, os.W_OK) and room >= ROOM else None


def _remove_old(current: Path) -> None:
    """Leave this version, and the others that were used last."""
    with suppress(OSError):
        others = [each for each in current.parent.iterdir() if each != current]
        others.sort(key=lambda each: each.stat().st_mtime, reverse=True)
        for version in others[KEPT - 1 :]:
            shutil.rmtree(version, ignore_errors=True)


def kernel(*, fast: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """Compile at the first call, and keep the result for later starts; ``fast`` lets LLVM reorder sums."""
    directory = _cache_directory()
    numba.config.CACHE_DIR = str(directory or "")  # type: ignore[attr-defined]
    decorator: Callable[[Callable[..., Any]], Any] = numba.njit(
        nogil=True, cache=directory is not None, fastmath=fast
    )
    return decorator


@contextmanager
def compiling() -> Generator[None]:
    """Let no other process compile meanwhile.

    numba numbers the results of a kernel without a lock: two processes may give the same number to different
    ones, and each later start would then compute with the wrong one. It runs what it finds, too: what
    is not as it was left could crash the process, and is compiled anew.
    """
    directory = _cache_directory()
    if directory is None:
        yield
        return
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_intact(directory):
            _empty(directory)
        yield
        with suppress(OSError):
            write_checksums(directory)


def _empty(directory: Path) -> None:
    """Without its directories, which numba has made already."""
    for file in directory.rglob("*"):
        if file.is_file() and file.name != LOCK:
            file.unlink(missing_ok=True)
