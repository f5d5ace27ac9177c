"""Ids of responses and items."""

from __future__ import annotations

import uuid


def new_id(prefix: str) -> str:
    """Return a unique id that starts with ``prefix``."""
    return f"{prefix}{uuid.uuid4().hex}"
