"""Text of models and servers, made safe for a terminal."""

from __future__ import annotations

import io
import re
import sys

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, which can move the cursor or send commands, and those that reorder text."""


def safe(text: str) -> str:
    """Return the text without what could control the terminal. Line breaks and tabs stay."""
    return _UNSAFE.sub("", text)


def first_line(text: str, length: int = 200) -> str:
    """Return the text as one short line."""
    return safe(" ".join(text.split()))[:length]


def accept_all_text() -> None:
    """Replace what the encoding of the standard streams lacks, instead of an error."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
