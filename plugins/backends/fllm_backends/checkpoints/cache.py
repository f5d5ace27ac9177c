"""What was made once is kept here: whole or not at all, and checked before it is used again."""

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

CONTENTS = "contents.json"
"""Names of files to their sizes and checksums; written when all of them are there."""
LOCK = "lock"

_PREFIX = ".making-"
_CHUNK = 1024**2
_Contents = dict[str, tuple[int, int]]


def cache_directory() -> Path:
    """Where converted models and compiled kernels are kept."""
    return Path(os.environ.get("FLLM_CACHE") or "~/.cache/furiosa-llm").expanduser()


def made_once(directory: Path, make: Callable[[Path], None]) -> None:
    """Let the directory hold what ``make`` writes, unless it does so already; raises `OSError`."""
    if intact(directory):
        return
    if directory.is_dir():
        log.warning("%s is damaged, and made again", directory)
    with _workplace(directory.parent) as temporary:
        make(temporary)
        seal(temporary)
        _publish(temporary, directory)


def seal(directory: Path) -> None:
    """Write down what is there, so that damage is noticed later; raises `OSError`."""
    (directory / CONTENTS).write_bytes(msgspec.json.encode(_contents(directory)))


def intact(directory: Path) -> bool:
    """Whether it holds what was there when it was sealed, and nothing else."""
    try:
        sealed = msgspec.json.decode((directory / CONTENTS).read_bytes(), type=_Contents)
        return sealed == _contents(directory)
    except (OSError, msgspec.DecodeError):
        return False


@contextmanager
def locked(path: Path, how: int = fcntl.LOCK_EX) -> Generator[None]:
    """Hold a file or directory against other processes, which a dead one no longer does; raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _workplace(parent: Path) -> Generator[Path]:
    """A new directory, held while it is worked in; those that nobody holds were left by the dead."""
    parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with locked(parent):
            _sweep(parent)
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            held.enter_context(locked(directory))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for left in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError), locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(left)


def _publish(temporary: Path, directory: Path) -> None:
    """Give the finished directory its name, unless another process was faster."""
    with locked(directory.parent):
        if not intact(directory):
            shutil.rmtree(directory, ignore_errors=True)
            temporary.rename(directory)


def _contents(directory: Path) -> _Contents:
    return {str(file.relative_to(directory)): _checksum(file) for file in _files(directory)}


def _files(directory: Path) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.is_file() and file.name not in (CONTENTS, LOCK))


def _checksum(path: Path) -> tuple[int, int]:
    """Size and CRC-32: against accidents, at the speed of a disk. Who can write here is trusted."""
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum
