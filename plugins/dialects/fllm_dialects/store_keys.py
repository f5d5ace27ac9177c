"""Keys that encrypt a store. Plugins read them with their options, before the model loads."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from pathlib import Path

from fllm.errors import ConfigError
from fllm.files import read_bounded

KEY_BYTES = 32


def read_key(path: Path) -> bytes:
    """Return the key in a file: 32 bytes in hexadecimal or base64. Raise `ConfigError`."""
    try:
        text = read_bounded(path, 4096).decode("ascii", errors="replace")
    except OSError as error:
        raise ConfigError(f"the key of the store cannot be read: {path}: {error.strerror}") from error
    return parse_key(text, where=str(path))


def parse_key(text: str, *, where: str) -> bytes:
    """Return a key of 32 bytes from hexadecimal or base64. Raise `ConfigError`, without the text."""
    text = text.strip()
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else b64decode(text, validate=True)
    except (ValueError, Base64Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"the key of the store in {where} is not a key of {KEY_BYTES} bytes in hexadecimal or base64; "
            "create one with `openssl rand -hex 32`"
        )
    return key
