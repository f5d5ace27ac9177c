"""Drafts of a sequence's next tokens, found by n-gram lookup (prompt lookup decoding).

The runner verifies several drafts in one step, for little more than the cost of one token.
"""

from __future__ import annotations

from collections import abc
from typing import Protocol

from fllm.config import Speculation

INITIAL_WIDTH = 1
"""Number of tokens in the first draft. It doubles as long as whole drafts are accepted."""
MAX_PAUSE = 32
"""Maximum number of tokens without a draft for a sequence whose drafts are rejected repeatedly."""


class Drafter(Protocol):
    """Proposes the next tokens of one sequence; each sequence has its own."""

    def draft(self, token_ids: abc.Sequence[int], max_drafts: int) -> list[int]:
        """Return up to ``max_drafts`` tokens that may follow ``token_ids``, which extend the last ones."""
        ...

    def update(self, drafted: int, accepted: int) -> None:
        """Record that ``accepted`` of the ``drafted`` tokens of the last draft were right."""
        ...


class NgramDrafter:
    """Proposes the tokens that followed the last occurrence of the same n tokens, as in copied text.

    Drafts grow while they are right. Each draft whose first token is wrong doubles a pause, so that a text
    without repetitions costs almost nothing.
    """

    def __init__(self, speculation: Speculation) -> None:
        self._sizes = range(speculation.prompt_lookup_max, speculation.prompt_lookup_min - 1, -1)
        self._max_width = speculation.num_speculative_tokens
        self._after: dict[tuple[int, ...], int] = {}
        """Position after the latest occurrence of each n-gram that is followed by a token."""
        self._indexed = 0
        self._width = INITIAL_WIDTH
        self._pause = 0
        self._skip = 0
        """Number of calls until the next draft."""

    def draft(self, token_ids: abc.Sequence[int], max_drafts: int) -> list[int]:
        """Return what followed the longest n-gram at the end of ``token_ids`` that occurred before."""
        if self._skip:
            self._skip -= 1
            return []
        self._index(token_ids)
        place = self._find(token_ids)
        if place is None:
            return []
        width = min(self._width, self._max_width, max_drafts)
        drafts = list(token_ids[place : place + width])
        period = len(drafts)
        while len(drafts) < width:  # the match overlaps the end: the text repeats itself
            drafts.append(drafts[-period])
        return drafts

    def update(self, drafted: int, accepted: int) -> None:
        """Draft more tokens after a draft that was right, and pause after one that was wrong."""
        if accepted:
            self._width = 2 * drafted if accepted == drafted else max(accepted, INITIAL_WIDTH)
            self._pause = 0
        else:
            self._width = INITIAL_WIDTH
            self._skip = self._pause
            self._pause = min(2 * self._pause + 1, MAX_PAUSE)

    def _index(self, token_ids: abc.Sequence[int]) -> None:
        """Add the new n-grams that end before the last token."""
        end = len(token_ids)
        for place in range(self._indexed + 1, end):
            for size in self._sizes:
                if size <= place:
                    self._after[tuple(token_ids[place - size : place])] = place
        self._indexed = max(self._indexed, end - 1)

    def _find(self, token_ids: abc.Sequence[int]) -> int | None:
        for size in self._sizes:
            if place := self._after.get(tuple(token_ids[-size:])):
                return place
        return None
