"""Drafts of a sequence's next tokens, found by n-gram lookup (prompt lookup decoding)."""

from __future__ import annotations

from collections import abc

from fllm import DraftedSequence, DrafterContext, DraftRequest, DraftResult, drafter_options
from fllm_backends.drafters.options import NgramOptions


class NgramDrafter:
    """Proposes the tokens that followed the last occurrence of the same n tokens, as in copied text."""

    def __init__(self, context: DrafterContext) -> None:
        self._options = drafter_options(context.settings, NgramOptions)
        self._indexes: dict[str, NgramIndex] = {}

    def start(self, sequence: DraftedSequence) -> None:
        """Create an empty index, which is filled when drafts are asked for."""
        options = self._options
        self._indexes[sequence.id] = NgramIndex(options.prompt_lookup_min, options.prompt_lookup_max)

    def propose(self, batch: abc.Sequence[DraftRequest]) -> abc.Sequence[abc.Sequence[int]]:
        """Return what followed the latest n-gram of each sequence before."""
        return [
            self._indexes[each.sequence.id].draft(each.sequence.token_ids, each.max_tokens) for each in batch
        ]

    def verified(self, results: abc.Sequence[DraftResult]) -> None:
        """Do nothing."""

    def end(self, sequence: DraftedSequence) -> None:
        """Drop the index of a sequence."""
        del self._indexes[sequence.id]

    def close(self) -> None:
        """Do nothing: there are no resources to free."""


class NgramIndex:
    """Where the n-grams of one growing text occurred last."""

    def __init__(self, shortest: int, longest: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._after: dict[tuple[int, ...], int] = {}
        """Position after the latest occurrence of each n-gram that is followed by a token."""
        self._indexed = 0

    def draft(self, token_ids: abc.Sequence[int], max_tokens: int) -> list[int]:
        """Return what followed the longest n-gram at the end of ``token_ids`` that occurred before.

        ``token_ids`` extend those of the last call.
        """
        self._index(token_ids)
        place = self._find(token_ids)
        if place is None:
            return []
        drafts = list(token_ids[place : place + max_tokens])
        period = len(drafts)
        while len(drafts) < max_tokens:  # the match overlaps the end: the text repeats itself
            drafts.append(drafts[-period])
        return drafts

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
