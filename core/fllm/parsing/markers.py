"""A stage that finds markers in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from fllm.parsing.partial_match import longest_overlap


class Marker(Struct, frozen=True):
    """A marker that was found in a text."""

    text: str


class MarkerSplitter:
    """Divides a text into markers and the text between them; concatenated, the parts are the text again.

    Text is returned at once, except for an end that may become a marker. Raises `ValueError` if a marker
    contains another one. Otherwise the marker that begins first is also complete first, however the text is
    divided.
    """

    def __init__(self, markers: Iterable[str]) -> None:
        self._markers = tuple(dict.fromkeys(markers))
        for one in self._markers:
            if any(one in other for other in self._markers if other != one):
                raise ValueError(f"marker {one!r} is part of another marker")
        self._pattern = re.compile("|".join(map(re.escape, self._markers)) or r"(?!)")
        self._pending = ""

    def feed(self, text: str) -> list[str | Marker]:
        """Process the next piece; return the parts that are certain."""
        text = self._pending + text
        parts: list[str | Marker] = []
        position = 0
        for match in self._pattern.finditer(text):
            parts += [text[position : match.start()], Marker(match[0])]
            position = match.end()
        end = len(text) - longest_overlap(text[position:], self._markers)
        self._pending = text[end:]
        return [part for part in [*parts, text[position:end]] if part]

    def finish(self) -> list[str | Marker]:
        """End the text: what might have become a marker is text."""
        pending, self._pending = self._pending, ""
        return [pending] if pending else []
