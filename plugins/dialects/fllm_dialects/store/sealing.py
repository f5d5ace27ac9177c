"""Encrypt the bodies of records with AES-256-GCM (NIST SP 800-38D)."""

from __future__ import annotations

import os
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12  # 96 bits, the length that NIST recommends


class Seal(Protocol):
    """How bodies are written to the file and read from it. ``context`` names the record of a body."""

    def close(self, body: bytes, context: bytes) -> bytes:
        """Return what is written."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return the body. Raise `BrokenSeal` if it is not the one that was written for this record."""
        ...


class BrokenSeal(Exception):
    """The key is another one, or the file was changed."""


class NoSeal:
    """Bodies are written as they are."""

    def close(self, body: bytes, context: bytes) -> bytes:  # noqa: ARG002
        """Return the body."""
        return body

    def open(self, sealed: bytes, context: bytes) -> bytes:  # noqa: ARG002
        """Return the body."""
        return sealed


class AesSeal:
    """Bodies are encrypted, and bound to their record: one that is moved to another record cannot be read."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def close(self, body: bytes, context: bytes) -> bytes:
        """Return a random nonce and the encrypted body with its tag (28 bytes more than the body)."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, body, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return the body. Raise `BrokenSeal`."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise BrokenSeal from error
