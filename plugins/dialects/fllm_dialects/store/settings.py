"""Limits and encryption of a store."""

from __future__ import annotations

from msgspec import Struct

DAY = 24 * 3600.0


class StoreSettings(Struct, frozen=True):
    """How long records are kept, how much space they may occupy, and the key that encrypts them."""

    ttl: float = 30 * DAY
    """Seconds after which a record that is not used expires."""
    max_bytes: int = 1 << 30
    """Maximum size of all records in the file."""
    max_record_bytes: int = 64 << 20
    """Maximum size of one record."""
    max_memory_bytes: int = 64 << 20
    """Maximum size of all records where no file can be written, so that they are in memory."""
    key: bytes | None = None
    """A key of 32 bytes, or ``None`` without encryption."""
