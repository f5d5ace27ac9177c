"""The interface of body scanners, and the limits and helpers that all of them share."""

from __future__ import annotations

import re
from typing import Literal, Protocol

ScanState = Literal["open", "complete", "broken"]

MAX_DEPTH = 256
"""Maximum number of levels of nesting; Python's own JSON parser fails at about 1000."""
MAX_NAME_LENGTH = 256
"""Maximum number of characters before the arguments of a call; no function name is longer."""
MAX_NUMBER_LENGTH = 512
"""Maximum number of characters of a number; Python's `int` rejects more than 4300 digits."""


class BodyScanner(Protocol):
    """Recognises the body of a tool call, which is the text that follows the opening marker.

    The text arrives in pieces of any size. The result depends on the text alone, not on how it was divided.
    A scanner reads each character a bounded number of times, so that the work is linear in the text. It
    stops where another call begins: otherwise a text of many openings without ends would be read again and
    again.

    A scanner keeps what it has read, such as the name and the arguments of the call, so that nothing has to
    read the body a second time. It can expose a part as soon as that part is certain: the name is usually
    known long before the body is complete.
    """

    @property
    def state(self) -> ScanState:
        """Whether the body is still open, complete, or broken: the text cannot be a call."""
        ...

    @property
    def length(self) -> int:
        """Number of characters read so far; the length of the body once it is complete."""
        ...

    def feed(self, text: str, start: int = 0) -> None:
        """Read on from index ``start`` of ``text``, until the body is complete or broken or the text ends."""
        ...


def match_end(pattern: re.Pattern[str], text: str, start: int = 0) -> int:
    """Return where a match of ``pattern`` at ``start`` ends; the pattern must also match the empty text."""
    match = pattern.match(text, start)
    assert match is not None
    return match.end()
