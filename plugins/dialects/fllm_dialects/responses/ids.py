"""Ids of responses and items."""

from __future__ import annotations

import uuid

MAX_SHOWN_CHARS = 100


def new_id(prefix: str) -> str:
    """Return a unique id that starts with ``prefix``."""
    return f"{prefix}{uuid.uuid4().hex}"


def shown(item_id: object) -> str:
    """Return an id that a client sent as part of a message: its beginning, if it is very long."""
    text = str(item_id or "")
    return repr(text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}...")
