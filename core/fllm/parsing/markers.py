"""A stage that finds markers in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

from fllm.parsing.partial_match import longest_overlap


class Marker(Struct, frozen=True):
    """A marker, found."""

    text: str


class MarkerSplitter:
    """Divides a text into markers and what is between them; concatenated, that is the text again.

    Text passes at once, but for an end that may become a marker. No marker may contain another: then the one
    that begins first is the one that is complete first, however the text is divided. Raises `ValueError`.
    """

    def __init__(self, markers: Iterable[str]) -> None:
        self._markers = tuple(dict.fromkeys(markers))
        for one in self._markers:
            if any(one in other for other in self._markers if other != one):
                raise ValueError(f"the marker {one!r} is a part of another")
        self._pattern = re.compile("|".join(map(re.escape, self._markers)) or r"(?!)")
        self._held = ""

    def feed(self, text: str) -> list[str | Marker]:
        """Take a piece; give what is certain."""
        text = self._held + text
        found: list[str | Marker] = []
        position = 0
        for match in self._pattern.finditer(text):
            found += [text[position : match.start()], Marker(match[0])]
            position = match.end()
        end = len(text) - longest_overlap(text[position:], self._markers)
        self._held = text[end:]
        return [part for part in [*found, text[position:end]] if part]

    def finish(self) -> list[str | Marker]:
        """No more will come: what might have become a marker is text."""
        held, self._held = self._held, ""
        return [held] if held else []
