"""How many drafts there is room for: they use no tokens or blocks that other running sequences need."""

from __future__ import annotations

from fllm.batching.sequence import Sequence
from fllm.batching.sequence_blocks import SequenceBlocks


class DraftRoom:
    """The room for drafts in one step after the other."""

    def __init__(self, blocks: SequenceBlocks, *, max_model_len: int, long_context_start: int | None) -> None:
        self._blocks = blocks
        self._max_model_len = max_model_len
        self._long_context_start = long_context_start
        self.running = self._spare = 0
        """Numbers of running sequences, and of tokens that they leave in the step."""

    def begin_step(self, running: int, token_budget: int) -> None:
        """Begin a step of at most ``token_budget`` tokens, while ``running`` sequences run."""
        self.running, self._spare = running, token_budget - running

    def of(self, sequence: Sequence) -> int:
        """Return how many drafts a sequence may have: none beyond its end, or into its long form."""
        left = self._max_model_len - sequence.length, sequence.sampling.max_tokens - sequence.generated
        most = min(*left) - 1
        if self._long_context_start is not None and not sequence.is_long:
            most = min(most, self._long_context_start - sequence.length)
        return max(min(most, self._spare, self._blocks.room(sequence, self.running)), 0)

    def take(self, sequence: Sequence, drafts: list[int]) -> list[int]:
        """Return the drafts that there still is room for, and give the sequence blocks for them."""
        drafts = drafts[: self.of(sequence)]
        if drafts:
            self._blocks.append(sequence, len(drafts))
            self._spare -= len(drafts)
        return drafts
