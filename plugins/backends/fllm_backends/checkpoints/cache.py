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

log = logging.getLogger("fllm.cache")

CHECKSUMS = "contents.json"
"""File that maps file names to their sizes and checksums. It is written last, when all other files exist."""
LOCK = "lock"
"""File that serialises processes which write to a directory."""

_TEMPORARY_PREFIX = ".making-"
_CHUNK_BYTES = 1024**2
_Checksums = dict[str, tuple[int, int]]


def cache_directory() -> Path:
    """Return the directory of converted models and compiled kernels: ``FLLM_CACHE`` or the default."""
    return Path(os.environ.get("FLLM_CACHE") or "~/.cache/furiosa-llm").expanduser()


def create_once(directory: Path, write: Callable[[Path], None]) -> None:
    """Create the directory with the files that ``write`` writes, unless it exists and is intact.

    ``write`` receives a temporary directory, which is renamed when it is complete. Raise `OSError`.
    """
    if is_intact(directory):
        return
    if directory.is_dir():
        log.warning("rebuilding damaged cache entry: %s", directory)
    with _temporary_directory(directory.parent) as temporary:
        write(temporary)
        write_checksums(temporary)
        _publish(temporary, directory)


def write_checksums(directory: Path) -> None:
    """Record the sizes and checksums of all files, so that `is_intact` detects damage. Raise `OSError`."""
    (directory / CHECKSUMS).write_bytes(msgspec.json.encode(_compute_checksums(directory)))


def is_intact(directory: Path) -> bool:
    """Return whether the directory holds exactly the files that `write_checksums` recorded."""
    try:
        recorded = msgspec.json.decode((directory / CHECKSUMS).read_bytes(), type=_Checksums)
        return recorded == _compute_checksums(directory)
    except (OSError, msgspec.DecodeError):
        return False


@contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Generator[None]:
    """Lock a file or directory with ``flock``, which the end of the process releases. Raise `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _temporary_directory(parent: Path) -> Generator[Path]:
    """Create a locked temporary directory; remove unlocked ones first, which crashed processes left."""
    parent.mkdir(parents=True, exist_ok=True)
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
            shutil.rmtree(directory, ignore_errors=True)
            temporary.rename(directory)


def _compute_checksums(directory: Path) -> _Checksums:
    return {str(file.relative_to(directory)): _checksum(file) for file in _files(directory)}


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file() and file.name not in (CHECKSUMS, LOCK))


def _checksum(path: Path) -> tuple[int, int]:
    """Return size and CRC-32.

    CRC-32 runs at disk speed. It detects accidents, not attacks: users who can write here are trusted.
    """
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum
