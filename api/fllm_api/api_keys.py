"""The API keys of a server, stored only as hashes."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from fllm.errors import ConfigError

MAX_OWNER_LENGTH = 64
OWNER = "owner:"
"""Prefix of the client names of owners."""

_VISIBLE_ASCII = re.compile(r"[!-~]+")
"""The characters of keys and owners. RFC 6750 allows fewer for a token; no other can be typed reliably."""
_BLANKS = " \t\r"

log = logging.getLogger("fllm.server")


class ApiKeys:
    """The keys from the command line, and those from a file, which can be reloaded.

    Each key is hashed with a secret of this process. A client cannot choose the hash, so the duration of a
    lookup reveals nothing about a key.
    """

    def __init__(self, keys: Iterable[str] = (), option: str = "--api-key", secret: bytes = b"") -> None:
        """Hash keys without an owner, with ``secret`` or a new one.

        Raise `ConfigError` if one has an invalid character.
        """
        self._secret = secret or secrets.token_bytes(32)
        self._from_options = self._named((None, _checked(key, f"{option}: a key")) for key in keys)
        self._from_file: dict[bytes, str] = {}
        self._file: Path | None = None
        self._name_secret: bytes | None = None
        self._owner_secret = self._secret

    def load(self, file: Path) -> None:
        """Replace the keys from a file. Raise `ConfigError` if it is unreadable, invalid or empty."""
        self._file = file
        self._from_file = self._named((owner, key) for key, owner in _read_keys(file).items())

    @property
    def has_file(self) -> bool:
        """Whether there is a file to reload."""
        return self._file is not None

    @property
    def required(self) -> bool:
        """Whether requests need a key. This never changes: a file without keys is not loaded."""
        return bool(self._from_options or self._from_file)

    def shares_key(self, other: ApiKeys) -> bool:
        """Return whether one of these keys is also one of the others, which have the same secret."""
        digests = self._from_options.keys() | self._from_file.keys()
        return not digests.isdisjoint(other._from_options.keys() | other._from_file.keys())

    def keep_names(self, secret: bytes) -> None:
        """Name clients by this secret, so that their names are the same in a later process that has it."""
        self._name_secret = secret

    def client(self, key: bytes) -> str | None:
        """Return the client name of a key, or ``None`` for an unknown key.

        It is ``owner:`` and the owner's name, which all keys of an owner share, or ``key:`` and a part of the
        key's hash, which is stable until the process ends. See also `keep_names`.
        """
        digest = self._hash(key)
        name = self._from_file.get(digest) or self._from_options.get(digest)
        if name is None or self._name_secret is None or name.startswith(OWNER):
            return name
        return f"key:{hashlib.blake2b(key, key=self._name_secret, digest_size=8).hexdigest()}"

    def keep_owners(self, secret: bytes) -> None:
        """Name owners by this secret, so that they are the same in a later process that has it."""
        self._owner_secret = secret

    def owner(self, key: bytes) -> str:
        """Return who owns what requests with a valid key store: the key's owner, or a name of the key."""
        digest = self._hash(key)
        name = self._from_file.get(digest) or self._from_options.get(digest) or ""
        if name.startswith(OWNER):
            return name
        return f"key:{hashlib.blake2b(key, key=self._owner_secret, digest_size=16).hexdigest()}"

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

    def _named(self, keys: Iterable[tuple[str | None, str]]) -> dict[bytes, str]:
        """Return client names by the hashes of keys, from keys with their owners."""
        hashed = ((owner, self._hash(key.encode())) for owner, key in keys)
        return {
            digest: f"{OWNER}{owner}" if owner else f"key:{digest.hex()[:16]}" for owner, digest in hashed
        }

    def _hash(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


def _read_keys(file: Path) -> dict[str, str | None]:
    """Return the keys of a file with their owners. Each line is ``KEY`` or ``OWNER KEY``."""
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        # A UnicodeDecodeError shows the bytes that it could not decode, which would be a key.
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"--api-key-file {file} can't be read: {reason}") from None
    keys: dict[str, str | None] = {}
    for number, line in enumerate((each.strip(_BLANKS) for each in lines), 1):
        if line and not line.startswith("#"):
            where = f"--api-key-file {file}, line {number}"
            key, owner = _parse_line(line, where)
            if keys.setdefault(key, owner) != owner:
                raise ConfigError(f"{where}: the same key has another owner in a line above")
    if not keys:
        raise ConfigError(f"--api-key-file {file} has no key")
    return keys


def _parse_line(line: str, where: str) -> tuple[str, str | None]:
    """Return key and owner. No message contains a part of the line, which may be a key."""
    words = re.split(r"[ \t]+", line)
    if len(words) > 2:
        raise ConfigError(f"{where}: {len(words)} words; expected KEY or OWNER KEY")
    key = _checked(words[-1], f"{where}: the key")
    if len(words) == 1:
        return key, None
    owner = _checked(words[0], f"{where}: the owner")
    if len(owner) > MAX_OWNER_LENGTH:
        raise ConfigError(f"{where}: the owner is longer than {MAX_OWNER_LENGTH} characters")
    return key, owner


def _checked(text: str, what: str) -> str:
    if not _VISIBLE_ASCII.fullmatch(text):
        raise ConfigError(
            f"{what} has a character that is not visible ASCII, such as a space or a letter like é"
        )
    return text
