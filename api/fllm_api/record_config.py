"""The options ``--record*``, and the private file that they name."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from fllm.errors import ConfigError


class RecordConfig(Struct, frozen=True):
    """The options ``--record*``."""

    file: Path
    max_bytes: int
    """Size of the file from which on nothing is added."""
    redact: tuple[re.Pattern[str], ...] = ()
    """What these match is replaced by ``[redacted]``."""


def open_private(file: Path) -> int:
    """Return a descriptor that appends to a file that only its owner can read. Raise `ConfigError`."""
    where = f"--record {file}"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        descriptor = os.open(file, flags, 0o600)
    except OSError as error:
        raise ConfigError(f"{where} can't be written: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ConfigError(f"{where} is not a regular file")
    if status.st_mode & 0o077:
        with suppress(OSError):  # of another owner, who decides
            os.fchmod(descriptor, 0o600)
    return descriptor
