"""Sizes in bytes, as options name them: ``2GiB``, ``500m``, ``4096``."""

from __future__ import annotations

import re

MAX_SIZE = 2**60
"""Maximum number of bytes that an option can name."""
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS |= {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return a number of bytes. Raise `ValueError` if the text is not a size, or not in the range."""
    match = _SIZE.fullmatch(text.strip())
    if not match or match[2].lower() not in _UNITS:
        raise ValueError("expected a size such as 2GiB")
    size = float(match[1]) * _UNITS[match[2].lower()]
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"expected 1 byte to {MAX_SIZE >> 50} PiB")
    return int(size)
