"""Select the tokens that may come next by a request's own fields: bad words, allowed tokens, its budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from fllm.batching.reasoning_budget import ReasoningBudget
from fllm.errors import RequestError
from fllm.values import SamplingParams


class TokenFilter:
    """The filter of one sequence. Sets of tokens are integers: token ``i`` is bit ``i``."""

    def __init__(
        self,
        sampling: SamplingParams,
        vocab_size: int,
        stop_ids: Collection[int],
        budget: ReasoningBudget | None = None,
    ) -> None:
        self.error: RequestError | None = None
        """Why the sequence can't continue: no token may come next."""
        self._bytes = 4 * -(-vocab_size // 32)
        self._all = (1 << vocab_size) - 1
        self._stops = _bits(stop_ids)
        self._budget = budget
        self._allowed = _bits(sampling.allowed_token_ids) if sampling.allowed_token_ids else self._all
        self._longest = max(map(len, sampling.bad_words_token_ids), default=0)
        self._bad_words: defaultdict[int, list[tuple[int, ...]]] = defaultdict(list)
        """Words of several tokens by their last token but one."""
        for word in sampling.bad_words_token_ids:
            if len(word) == 1:
                self._allowed &= ~(1 << word[0])
            else:
                self._bad_words[word[-2]].append(word)

    def mask(self, output: Sequence[int], grammar_mask: memoryview | None, *, may_stop: bool) -> memoryview:
        """Return the bitmask of the tokens that may follow, as `Row.mask` describes it.

        ``output`` is the output, or at least its last `context_length` tokens.
        Without a grammar, stop tokens may follow only if ``may_stop``. With one, they may if it allows them.
        If no token is left, set `error` and allow those of the grammar.
        """
        words = self._bad_words.get(output[-1], ()) if output else ()
        allowed = self._allowed & ~_bits([word[-1] for word in words if _ends(output, word)])
        if grammar_mask is not None:
            grammar = int.from_bytes(grammar_mask, "little")
            allowed = (allowed | self._stops) & grammar
        else:
            grammar = self._all
            if not may_stop:
                allowed &= ~self._stops
        forced = None if self._budget is None else self._budget.forced_token
        if forced is not None and grammar >> forced & 1:
            allowed = 1 << forced
        if not allowed:
            self.error = RequestError(
                "no token may come next: `allowed_token_ids`, `bad_words`, `min_tokens` and the constraint "
                "of the output exclude all"
            )
            allowed = grammar
        return memoryview(allowed.to_bytes(self._bytes, "little")).cast("i")

    @property
    def context_length(self) -> int:
        """Number of last tokens of the output on which the next mask depends."""
        return max(self._longest - 1, 0)

    def accept(self, token_id: int) -> None:
        """Append a token of the output."""
        if self._budget is not None:
            self._budget.accept(token_id)


def _bits(token_ids: Collection[int]) -> int:
    mask = bytearray(max(token_ids, default=-1) // 8 + 1)
    for token_id in token_ids:
        mask[token_id // 8] |= 1 << token_id % 8
    return int.from_bytes(mask, "little")


def _ends(output: Sequence[int], word: Sequence[int]) -> bool:
    """Return whether the output ends with all of the word's tokens but the last."""
    return tuple(output[1 - len(word) :]) == tuple(word[:-1])
