"""Directories to which only this user may write, each with a secret."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from fllm.errors import ConfigError
from fllm.files import read_bounded

SECRET = "secret"
"""File with a random key, so that what depends on it is the same after a restart."""
_SECRET_BYTES = 32
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def open_directory(path: str, option: str = "--kv-cache-dir", *, parents: bool = False) -> Path:
    """Return the directory of an option, which is created if only itself is missing, or its ``parents``.

    Raise `ConfigError` if it can't be used, or if others can write to it: the server trusts its content.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, parents=parents, exist_ok=True)
        status = directory.stat()
        probe = directory / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
        os.close(os.open(probe, _CREATE, 0o600))
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from error
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{option} {path} belongs to the user {status.st_uid}, not to this one")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{option} {path} can be written by others: run chmod go-w {path}")
    return directory


def load_secret(path: str, option: str = "--kv-cache-dir") -> bytes:
    """Return the secret of a directory, which is created with it. Raise `ConfigError`."""
    directory = open_directory(path, option)
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
        raise ConfigError(f"{option} {path}: {SECRET}: {error.strerror}") from error
    if len(secret) != _SECRET_BYTES:
        raise ConfigError(f"{option} {path}: {SECRET} is damaged: remove it")
    return secret
