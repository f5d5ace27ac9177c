"""Cache of converted models and compiled kernels: complete or absent, verified before each use."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from fllm_backends.checkpoints.cache_directory import (
    find_problem_in,
    private_files,
    read_only_directory,
    writable_directory,
)

log = logging.getLogger("fllm.cache")

CHECKSUMS = "contents.json"
"""File that maps file names to their sizes and checksums. It is written last, when all other files exist."""
LOCK = "lock"
"""File that serialises processes which write to a directory."""

_TEMPORARY_PREFIX = ".making-"
_CHUNK_BYTES = 1024**2
_Checksums = dict[str, tuple[int, int]]


def create_once(kind: str, name: str, write: Callable[[Path], None]) -> Path:
    """Return the directory ``name`` of the cache with the files that ``write`` writes, unless it is intact.

    ``write`` receives a temporary directory, which is renamed when it is complete. Raise `OSError`, and
    `ConfigError` if others can write to the cache.
    """
    if (shared := read_only_directory(kind)) and is_intact(shared / name):
        return shared / name
    parent = writable_directory(kind)
    directory = parent / name
    if is_intact(directory):
        return directory
    if os.path.lexists(directory):
        log.warning(
            "rebuilding damaged cache entry: %s%s",
            directory,
            f" ({problem})" if (problem := find_problem_in(directory)) else "",
        )
    with private_files(), _temporary_directory(parent) as temporary:
        write(temporary)
        write_checksums(temporary)
        _publish(temporary, directory)
    return directory


def remove(directory: Path) -> None:
    """Remove a directory of the cache, or what others have put in its place. Raise `OSError`."""
    if directory.is_dir() and not directory.is_symlink():
        shutil.rmtree(directory)
    else:
        directory.unlink(missing_ok=True)


def write_checksums(directory: Path) -> None:
    """Record the sizes and checksums of all files, so that `is_intact` detects damage. Raise `OSError`."""
    (directory / CHECKSUMS).write_bytes(msgspec.json.encode(_compute_checksums(directory)))


def is_intact(directory: Path) -> bool:
    """Return whether the directory holds exactly the files that `write_checksums` recorded.

    Files that other users could have written are not intact.
    """
    try:
        if find_problem_in(directory):
            return False
        recorded = msgspec.json.decode((directory / CHECKSUMS).read_bytes(), type=_Checksums)
        return recorded == _compute_checksums(directory)
    except (OSError, msgspec.DecodeError):
        return False


@contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Generator[None]:
    """Lock a file or directory with ``flock``, which the end of the process releases. Raise `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _temporary_directory(parent: Path) -> Generator[Path]:
    """Create a locked temporary directory; remove unlocked ones first, which crashed processes left."""
    with ExitStack() as stack:
        with locked(parent):
            _remove_stale(parent)
            directory = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=parent))
            stack.enter_context(locked(directory))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    for directory in parent.glob(f"{_TEMPORARY_PREFIX}*"):
        with suppress(OSError), locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(directory)


def _publish(temporary: Path, directory: Path) -> None:
    """Rename the finished directory, unless another process has published it first."""
    with locked(directory.parent):
        if not is_intact(directory):
            remove(directory)
            temporary.rename(directory)


def _compute_checksums(directory: Path) -> _Checksums:
    return {str(file.relative_to(directory)): _checksum(file) for file in _files(directory)}


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file() and file.name not in (CHECKSUMS, LOCK))


def _checksum(path: Path) -> tuple[int, int]:
    """Return size and CRC-32.

    CRC-32 runs at disk speed. It detects accidents, not attacks: only this user and root can write here.
    """
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum
