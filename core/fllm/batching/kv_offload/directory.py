"""The directory of ``--kv-cache-dir``: only this user may write to it. It holds a secret, too."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from fllm.errors import ConfigError
from fllm.files import read_bounded

SECRET = "secret"
"""File with the key of the salts that separate clients, so that they are the same after a restart."""
_SECRET_BYTES = 32
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def open_directory(path: str) -> Path:
    """Return a directory for blocks, which is created if only itself is missing.

    Raise `ConfigError` if it can't be used, or if others can write to it: the server trusts its content.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.stat()
        probe = directory / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
        os.close(os.open(probe, _CREATE, 0o600))
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"--kv-cache-dir {path}: {error.strerror}") from error
    if status.st_uid != os.geteuid():
        raise ConfigError(f"--kv-cache-dir {path} belongs to the user {status.st_uid}, not to this one")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"--kv-cache-dir {path} can be written by others: run chmod go-w {path}")
    return directory


def load_secret(path: str) -> bytes:
    """Return the secret of a directory, which is created with it. Raise `ConfigError`."""
    directory = open_directory(path)
    file = directory / SECRET
    temporary = directory / f".{SECRET}-{secrets.token_hex(8)}"
    try:
        if not file.exists():
            with open(os.open(temporary, _CREATE, 0o600), "wb") as opened:
                opened.write(secrets.token_bytes(_SECRET_BYTES))
            with suppress(FileExistsError):  # another server was faster
                os.link(temporary, file)
            temporary.unlink()
        secret = read_bounded(file, _SECRET_BYTES)
    except OSError as error:
        raise ConfigError(f"--kv-cache-dir {path}: {SECRET}: {error.strerror}") from error
    if len(secret) != _SECRET_BYTES:
        raise ConfigError(f"--kv-cache-dir {path}: {SECRET} is damaged: remove it")
    return secret
