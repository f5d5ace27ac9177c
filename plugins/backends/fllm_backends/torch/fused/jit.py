"""Compile the kernels with numba, without the GIL, and keep them for later starts."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Generator, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import numba

from fllm_backends.checkpoints.cache import LOCK, is_intact, remove, write_checksums
from fllm_backends.checkpoints.cache_directory import (
    find_problem_in,
    private_files,
    read_only_directory,
    writable_directory,
)

log = logging.getLogger("fllm.cache")

MAX_VERSIONS = 12
"""Directories of kernels to keep, each about 6 MB: a machine may have several installations and versions."""
MIN_FREE_BYTES = 32 * 1024**2
"""Free disk space below which kernels are compiled at each start and none are kept."""


@cache
def _cache_directory() -> Path | None:
    """Return the directory of this version of the sources in this place; ``None`` if nothing can be kept.

    numba itself only checks the source file that contains a kernel. It never uses the kernels of another
    installation, so installations share no directory: they would wait for each other, and an interrupted
    compilation in one would discard the kernels of all. Raise `ConfigError` if others can write to the cache.
    """
    package = Path(__file__).parent
    sources = (source.read_bytes() for source in sorted(package.glob("*.py")))
    digest = hashlib.blake2b(b"".join((os.fsencode(package.absolute()), *sources)), digest_size=8)
    try:
        return _create_directory(writable_directory("kernels", in_memory=True) / digest.hexdigest())
    except OSError as error:
        reason = error.strerror or error
        log.warning(
            "no cache for kernels (%s): they are compiled at each start, which takes a minute", reason
        )
        return None


def _create_directory(directory: Path) -> Path:
    """Create and return the directory of this version. Raise `OSError`, also if there is little room."""
    with private_files():
        if os.path.lexists(directory) and (problem := find_problem_in(directory)):
            log.warning("compiling the kernels again: %s", problem)
            remove(directory)
        directory.mkdir(exist_ok=True)
        if shutil.disk_usage(directory).free < MIN_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.utime(directory)
    _remove_old_versions(directory)
    return directory


def _remove_old_versions(current: Path) -> None:
    """Remove all but this version and the ones used last."""
    with suppress(OSError):
        others = [each for each in current.parent.iterdir() if each != current]
        others.sort(key=lambda each: each.stat().st_mtime, reverse=True)
        for version in others[MAX_VERSIONS - 1 :]:
            shutil.rmtree(version, ignore_errors=True)


def kernel(
    *, fastmath: bool | Set[str] = True, allocates: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function at its first call and keeps the result for later starts.

    ``fastmath`` lets LLVM reorder sums; a set names flags of LLVM. A function that ``allocates`` may use
    operations of numpy that make arrays. The others do not count the references to their arrays, which takes
    longer than some phases.
    """
    flags = fastmath if isinstance(fastmath, bool) else {*fastmath}
    options: dict[str, Any] = {"fastmath": flags, "_nrt": allocates}
    decorator: Callable[[Callable[..., Any]], Any] = numba.njit(nogil=True, cache=_set_up_cache(), **options)

    def decorate(function: Callable[..., Any]) -> Any:
        with private_files():  # numba creates a directory
            return decorator(function)

    return decorate


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function at once and keeps the result, as `kernel` does.

    The result has an ``address``, by which kernels can call it: it is not compiled again with each of them.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        with private_files():
            return numba.cfunc(signature, cache=_set_up_cache(), fastmath=False)(function)

    return decorate


def _set_up_cache() -> bool:
    """Set numba's options for the cache. Return whether there is one."""
    directory = _cache_directory()
    numba.config.CACHE_DIR = str(directory or "")  # type: ignore[attr-defined]
    # Otherwise numba also reads kernels next to the sources and in the home directory.
    numba.config.CACHE_LOCATOR_CLASSES = "UserProvidedCacheLocator"  # type: ignore[attr-defined]
    return directory is not None


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
    with private_files(), _lock(directory):
        if not is_intact(directory):
            _remove_kernels(directory)
            with suppress(OSError):
                _copy_read_only(directory)
        yield
        with suppress(OSError):
            write_checksums(directory)


def _lock(directory: Path) -> TextIO:
    """Create and lock the file of the lock. Another version may remove the directory at any time."""
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as stack:
            descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
            lock = stack.enter_context(open(descriptor, "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            # A lock on a file that was removed meanwhile excludes nobody.
            if os.path.samestat(os.fstat(descriptor), os.stat(directory / LOCK)):
                stack.pop_all()
                return lock


def _remove_kernels(directory: Path) -> None:
    """Remove the files but not the directories, which numba has already created."""
    for file in directory.rglob("*"):
        if file.name != LOCK and not file.is_dir():
            file.unlink(missing_ok=True)


def _copy_read_only(directory: Path) -> None:
    """Copy the kernels of a cache that can't be written, since numba only reads where it can write."""
    if (shared := read_only_directory("kernels")) and is_intact(shared / directory.name):
        shutil.copytree(
            shared / directory.name,
            directory,
            ignore=shutil.ignore_patterns(LOCK),
            copy_function=shutil.copyfile,
            dirs_exist_ok=True,
        )
