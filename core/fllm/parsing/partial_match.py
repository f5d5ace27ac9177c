"""Functions that find how much of the end of a text may be the beginning of a marker."""

from __future__ import annotations

from collections.abc import Iterable


def overlap(text: str, marker: str) -> int:
    """Return the length of the longest end of ``text`` that begins ``marker`` without completing it.

    A stage must hold back that many characters, since the next piece may complete the marker.
    """
    if marker[0] not in text:  # the common case
        return 0
    start = max(0, len(text) - len(marker) + 1)
    while (start := text.find(marker[0], start)) >= 0:
        if marker.startswith(text[start:]):
            return len(text) - start
        start += 1
    return 0


def longest_overlap(text: str, markers: Iterable[str]) -> int:
    """Return the largest `overlap` of ``text`` with one of the markers; 0 if there are none."""
    return max([overlap(text, marker) for marker in markers], default=0)
