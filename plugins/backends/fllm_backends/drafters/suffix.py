"""Drafts from the longest match of a sequence's last tokens, in its own text and in earlier outputs.

This is suffix decoding (Oliaro et al. 2024, arXiv 2411.04975), with chains of hashes instead of suffix trees:
the drafts are what most of the latest occurrences of the longest match agree on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fllm import DraftedSequence, DrafterContext, DraftRequest, DraftResult, drafter_options
from fllm_backends.drafters.options import SuffixOptions
from fllm_backends.drafters.output_cache import OutputCache
from fllm_backends.drafters.suffix_index import END, SuffixIndex

INDEXED_PER_STEP = 2048
"""Number of tokens of a sequence that are indexed in one step: they take 2 ms."""

Occurrence = tuple[Sequence[int], int]
"""Tokens, and the position at which they continue a match."""


class SuffixDrafter:
    """Proposes what followed the longest match."""

    def __init__(self, context: DrafterContext) -> None:
        self._options = drafter_options(context.settings, SuffixOptions)
        self._outputs = OutputCache(self._options.suffix_decoding_max_cached_requests)
        self._own: dict[str, SuffixIndex] = {}

    def start(self, sequence: DraftedSequence) -> None:
        """Create an empty index, which is filled when drafts are asked for."""
        self._own[sequence.id] = SuffixIndex()

    def propose(self, batch: Sequence[DraftRequest]) -> Sequence[Sequence[int]]:
        """Return what followed the longest match of each sequence."""
        return [self._draft(each.sequence, each.max_tokens) for each in batch]

    def verified(self, results: Sequence[DraftResult]) -> None:
        """Do nothing."""

    def end(self, sequence: DraftedSequence) -> None:
        """Keep the output of a sequence for later ones of its scope."""
        del self._own[sequence.id]
        self._outputs.add(sequence.scope, sequence.token_ids[sequence.prompt_length :])

    def close(self) -> None:
        """Do nothing: there are no resources to free."""

    def _draft(self, sequence: DraftedSequence, max_tokens: int) -> list[int]:
        own, text = self._own[sequence.id], sequence.token_ids
        known = len(own.tokens)
        own.append(text[known : known + INDEXED_PER_STEP])
        options, longest = self._options, 0
        occurrences: list[Occurrence] = []
        for index in (own, *self._outputs.of(sequence.scope)):
            tokens = text if index is own else index.tokens
            for position, length in index.occurrences(text, options.suffix_decoding_max_tree_depth):
                if length > longest:
                    longest, occurrences = length, []
                if length == longest:
                    occurrences.append((tokens, position))
        count = min(max_tokens, int(longest * options.suffix_decoding_max_spec_factor))
        return agreed(occurrences, count, options.suffix_decoding_min_token_prob)


def agreed(occurrences: Sequence[Occurrence], count: int, min_probability: float) -> list[int]:
    """Return up to ``count`` tokens on which most occurrences agree.

    The probability of a token is the share of the occurrences in which it and all before it follow. A text
    that ends in the middle continues with what was found: it repeats itself.
    """
    drafts: list[int] = []
    alive = list(occurrences)
    while alive and len(drafts) < count:
        following = [_token(tokens, position + len(drafts), drafts) for tokens, position in alive]
        [(token, votes)] = Counter(following).most_common(1)
        if token == END or votes < min_probability * len(occurrences):
            break
        alive = [each for each, next_token in zip(alive, following, strict=True) if next_token == token]
        drafts.append(token)
    return drafts


def _token(tokens: Sequence[int], position: int, drafts: Sequence[int]) -> int:
    beyond = position - len(tokens)
    return tokens[position] if beyond < 0 else drafts[beyond]
