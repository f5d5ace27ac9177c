"""The API keys of a server, of which only hashes are kept."""

from __future__ import annotations

import hashlib
import logging
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from fllm.errors import ConfigError

log = logging.getLogger("fllm.server")


class Keys:
    """Those given at the start, and those of a file, which may change.

    Each is hashed with a secret of this process. Nobody can choose such a hash, so how long it takes to look
    one up tells nothing of a key.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._secret = secrets.token_bytes(32)
        self._given = self._hashes(keys)
        self._of_file: frozenset[bytes] = frozenset()
        self._file: Path | None = None

    def watch(self, file: Path) -> None:
        """Take the keys of a file, too; raises `ConfigError` if there are none to be had."""
        self._file = file
        self._of_file = self._hashes(_read(file))

    @property
    def required(self) -> bool:
        """Whether requests need one. This never changes: a file that loses all its keys is not taken over."""
        return bool(self._given or self._of_file)

    def client(self, key: bytes) -> str | None:
        """The name of whoever has this key, the same until the server ends; ``None`` if nobody has it."""
        digest = self._hash(key)
        return f"key:{digest.hex()[:8]}" if digest in self._given or digest in self._of_file else None

    def reload(self) -> None:
        """Read the file again; where that fails, the keys stay what they were and the log says why."""
        if self._file is None:
            log.warning("SIGHUP: there is no --api-key-file to read again")
            return
        try:
            self.watch(self._file)
        except ConfigError as error:
            log.error("%s; the keys stay as they were", error)
        else:
            log.info("%s was read again: %d keys", self._file, len(self._of_file))
            self.warn()

    def warn(self) -> None:
        """Say so in the log if anybody on the machine may read the file."""
        if self._file is not None and self._file.stat().st_mode & stat.S_IROTH:
            log.warning("--api-key-file %s can be read by everybody: chmod o-r %s", self._file, self._file)

    def _hashes(self, keys: Iterable[str]) -> frozenset[bytes]:
        return frozenset(self._hash(key.encode()) for key in keys)

    def _hash(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


def _read(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        # What a decoder can't read it shows, and here that would be a key.
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"--api-key-file {file} can't be read: {why}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"--api-key-file {file} has no key")
    return keys
