"""Guesses of a sequence's next tokens, which the runner verifies several at once for little more than one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fllm.config import Speculation

FIRST_WIDTH = 1
"""Tokens of a first guess; it is doubled as long as all of it is right."""
MAX_PAUSE = 32
"""Tokens without a guess, at most, for a sequence whose guesses are wrong again and again."""


class Drafter(Protocol):
    """Guesses how one sequence goes on; made anew for each."""

    def draft(self, token_ids: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that may follow these, of which earlier calls saw the beginning."""
        ...

    def learn(self, drafted: int, accepted: int) -> None:
        """Of the last guess, so many tokens were verified, and so many were right."""
        ...


class NgramDrafter:
    """Guesses that after the same n tokens comes what came the last time, as it does in copied text.

    Guesses grow while they are right. Each that is wrong from its first token on doubles a pause, so that a
    text without repetitions costs nearly nothing.
    """

    def __init__(self, speculation: Speculation) -> None:
        self._sizes = range(speculation.prompt_lookup_max, speculation.prompt_lookup_min - 1, -1)
        self._most = speculation.num_speculative_tokens
        self._after: dict[tuple[int, ...], int] = {}
        """The place after the latest occurrence of each n-gram that something follows."""
        self._indexed = 0
        self._width = FIRST_WIDTH
        self._pause = 0
        self._wait = 0

    def draft(self, token_ids: Sequence[int], most: int) -> list[int]:
        """What followed the longest n-gram that ends ``token_ids`` and stood there before."""
        if self._wait:
            self._wait -= 1
            return []
        self._index(token_ids)
        place = self._find(token_ids)
        if place is None:
            return []
        width = min(self._width, self._most, most)
        guess = list(token_ids[place : place + width])
        period = len(guess)
        while len(guess) < width:  # it overlaps the end: a text that repeats itself at once
            guess.append(guess[-period])
        return guess

    def learn(self, drafted: int, accepted: int) -> None:
        """Guess more after a guess that was right, and pause after one that was wrong."""
        if accepted:
            self._width = 2 * drafted if accepted == drafted else max(accepted, FIRST_WIDTH)
            self._pause = 0
        else:
            self._width = FIRST_WIDTH
            self._wait = self._pause
            self._pause = min(2 * self._pause + 1, MAX_PAUSE)

    def _index(self, token_ids: Sequence[int]) -> None:
        """Enter the n-grams that end before the last token, as far as they are new."""
        end = len(token_ids)
        for place in range(self._indexed + 1, end):
            for size in self._sizes:
                if size <= place:
                    self._after[tuple(token_ids[place - size : place])] = place
        self._indexed = max(self._indexed, end - 1)

    def _find(self, token_ids: Sequence[int]) -> int | None:
        for size in self._sizes:
            if place := self._after.get(tuple(token_ids[-size:])):
                return place
        return None
