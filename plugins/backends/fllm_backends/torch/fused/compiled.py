"""How the kernels are compiled: without the GIL, once for all starts."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba

from fllm_backends.torch.cache import cache_directory


@cache
def _cache_directory() -> Path | None:
    """A place for each version of the sources: numba itself looks only at the one that holds the kernel."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.blake2b(b"".join(source.read_bytes() for source in sources), digest_size=8)
    directory = cache_directory() / "kernels" / digest.hexdigest()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return directory if os.access(directory, os.W_OK) else None


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
    ones, and each later start would then compute with the wrong one.
    """
    directory = _cache_directory()
    if directory is None:
        yield
        return
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
