"""Read files that others wrote, such as those of a model: regular files of a limited size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_POINTER, _MAX_POINTER_BYTES = b"version https://git-lfs", 1024


def check_regular(path: Path) -> int:
    """Return the size of a file; raise `OSError` unless it is a regular file, or a link to one.

    To open a named pipe would wait for ever, and a device may never end. A file that stands for one that Git
    LFS has not fetched is refused, too.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size < _MAX_POINTER_BYTES:
        _check_fetched(path, path.read_bytes())
    return status.st_size


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raise `OSError` if it is larger than ``max_bytes``, or stands for a file that Git LFS has not fetched.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes >> 20} MiB", str(path))
    _check_fetched(path, content)
    return content


def _check_fetched(path: Path, content: bytes) -> None:
    if content.startswith(_POINTER):
        message = "it is a pointer of Git LFS: fetch the file itself with `git lfs pull`"
        raise OSError(errno.EINVAL, message, str(path))
