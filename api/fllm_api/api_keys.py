"""The API keys of a server, stored only as hashes."""

from __future__ import annotations

import hashlib
import logging
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from fllm.errors import ConfigError

log = logging.getLogger("fllm.server")


class ApiKeys:
    """The keys from the command line, and those from a file, which can be reloaded.

    Each key is hashed with a secret of this process. A client cannot choose the hash, so the duration of a
    lookup reveals nothing about a key.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._secret = secrets.token_bytes(32)
        self._from_options = self._hash_all(keys)
        self._from_file: frozenset[bytes] = frozenset()
        self._file: Path | None = None

    def load(self, file: Path) -> None:
        """Replace the keys from a file. Raise `ConfigError` if it cannot be read or holds no key."""
        self._file = file
        self._from_file = self._hash_all(_read_keys(file))

    @property
    def required(self) -> bool:
        """Whether requests need a key. This never changes: a file without keys is not loaded."""
        return bool(self._from_options or self._from_file)

    def client(self, key: bytes) -> str | None:
        """Return the client name of a key, stable until the process ends, or ``None`` for an unknown key."""
        digest = self._hash(key)
        return (
            f"key:{digest.hex()[:8]}" if digest in self._from_options or digest in self._from_file else None
        )

    def reload(self) -> None:
        """Read the file again; if that fails, keep the present keys and log why."""
        if self._file is None:
            log.warning("SIGHUP ignored: there is no --api-key-file to reload")
            return
        try:
            self.load(self._file)
        except ConfigError as error:
            log.error("API keys not reloaded, the present ones stay valid: %s", error)
        else:
            log.info("API keys reloaded: %d keys from %s", len(self._from_file), self._file)
            self.warn_if_world_readable()

    def warn_if_world_readable(self) -> None:
        """Log a warning if every user of the machine may read the file."""
        if self._file is not None and self._file.stat().st_mode & stat.S_IROTH:
            log.warning(
                "--api-key-file is readable by every user: %s; run: chmod o-r %s", self._file, self._file
            )

    def _hash_all(self, keys: Iterable[str]) -> frozenset[bytes]:
        return frozenset(self._hash(key.encode()) for key in keys)

    def _hash(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


def _read_keys(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        # A UnicodeDecodeError shows the bytes that it could not decode, which would be a key.
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"--api-key-file {file} can't be read: {reason}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"--api-key-file {file} has no key")
    return keys
