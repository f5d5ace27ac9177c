"""Small stages of text that others are made of."""

from __future__ import annotations

from collections.abc import Iterable


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of ``text`` that begins ``marker`` without completing it.

    So many characters must be held back, since the next piece may complete the marker.
    """
    if marker[0] not in text:  # nearly always
        return 0
    start = max(0, len(text) - len(marker) + 1)
    while (start := text.find(marker[0], start)) >= 0:
        if marker.startswith(text[start:]):
            return len(text) - start
        start += 1
    return 0


def longest_overlap(text: str, markers: Iterable[str]) -> int:
    """`overlap` with whichever marker holds back most."""
    return max([overlap(text, marker) for marker in markers], default=0)


def find_first(text: str, markers: Iterable[str]) -> tuple[int, str] | None:
    """Where the marker that completes first begins, and which it is; of two that end together, the longer.

    "Completes first" and not "begins first": fed piece by piece, only that is known without looking ahead.
    """
    found = [(start + len(marker), start, marker) for marker in markers if (start := text.find(marker)) >= 0]
    if not found:
        return None
    _, start, marker = min(found)
    return start, marker


class StopStrings:
    """Ends the text before (or with) the first stop string; holds back what may become one."""

    def __init__(self, stop: Iterable[str], *, include: bool = False) -> None:
        self._stop = tuple(stop)
        self._include = include
        self._held = ""
        self.matched: str | None = None
        """The stop string that was found; nothing is emitted after it."""

    def feed(self, text: str) -> str:
        """Take a piece; give what is certain to come before any stop string."""
        if self.matched is not None or not self._stop:
            return "" if self.matched is not None else text
        text = self._held + text
        self._held = ""
        if hit := find_first(text, self._stop):
            position, self.matched = hit
            return text[: position + len(self.matched)] if self._include else text[:position]
        held = longest_overlap(text, self._stop)
        if held:
            text, self._held = text[:-held], text[-held:]
        return text

    def finish(self) -> str:
        """No more will come: give what was held back."""
        held, self._held = self._held, ""
        return held
