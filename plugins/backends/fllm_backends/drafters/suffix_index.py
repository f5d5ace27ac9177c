"""Find where the last tokens of a text have occurred before, and what followed them there."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

KEY_SIZES = 6, 2
"""Numbers of tokens by whose hash occurrences are found, the longer first."""
MAX_OCCURRENCES = 16
"""Number of latest occurrences that are compared."""
END = -1
"""Follows each text."""


class SuffixIndex:
    """The positions of texts, as chains of those with the same hash of the last tokens.

    So LZ77 compressors find matches (RFC 1951, section 4). A token takes about 260 bytes.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._latest: list[dict[int, int]] = [{} for _ in KEY_SIZES]
        """The latest position of each hash of tokens that end there."""
        self._previous = [array("i") for _ in KEY_SIZES]
        """The position before with the same hash, of each position; -1: there is none."""

    def append(self, tokens: Iterable[int]) -> None:
        """Add tokens. The last of all is found only once another one follows it."""
        known = self.tokens
        for token in tokens:
            end = len(known)
            if end:
                for size, latest, previous in zip(KEY_SIZES, self._latest, self._previous, strict=True):
                    if end < size:
                        previous.append(-1)
                        continue
                    key = hash(tuple(known[end - size : end]))
                    previous.append(latest.get(key, -1))
                    latest[key] = end - 1
            known.append(token)

    def occurrences(self, text: Sequence[int], max_length: int) -> Iterator[tuple[int, int]]:
        """Yield where the end of the text has occurred, the latest first.

        Each is the position after it, and how many of the last tokens are equal, at most ``max_length``.
        """
        for size, latest, previous in zip(KEY_SIZES, self._latest, self._previous, strict=True):
            if len(text) < size:
                continue
            found = False
            position = latest.get(hash(tuple(text[-size:])), -1)
            for _ in range(MAX_OCCURRENCES):
                if position < 0:
                    break
                length = self._common(text, position, max_length)
                if length >= size:
                    found = True
                    yield position + 1, length
                position = previous[position]
            if found:
                return

    def _common(self, text: Sequence[int], position: int, max_length: int) -> int:
        """Return how many of the tokens up to ``position`` equal the last ones of the text."""
        most = min(max_length, position + 1, len(text))
        known = self.tokens
        return next((i for i in range(most) if known[position - i] != text[-1 - i]), most)
