"""The header of a response, and new ids."""

from __future__ import annotations

import time
import uuid

from msgspec import Struct, field


class ResponseHeader(Struct, frozen=True):
    """Fields that all chunks of a response have in common."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))


def new_id(prefix: str) -> str:
    """Return a unique id that starts with ``prefix``."""
    return f"{prefix}{uuid.uuid4().hex}"
