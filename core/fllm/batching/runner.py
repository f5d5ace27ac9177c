"""What a new device implements: load, allocate, execute one batch. `fllm.batching` does the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from fllm.values import ModelCard, Progress, SamplingParams, TokenLogprob


class Row(Struct, frozen=True, kw_only=True):
    """One sequence's share of a batch: compute ``count`` tokens from position ``start``.

    The KV pairs of positions before ``start`` are in the cache; those of the ``count`` new ones are to be
    written there. Position ``p`` lives in block ``block_table[p // block_size]``, offset ``p % block_size``.
    """

    token_ids: Sequence[int]
    """Prompt and answer so far, at least ``start + count`` long. Read it during `execute` only: it grows."""
    prompt_length: int
    """How many of ``token_ids`` are the prompt's."""
    start: int
    count: int
    block_table: Sequence[int]
    sampling: SamplingParams
    seed: int
    """Of this sequence. The draw for position ``p`` depends on ``(seed, p)`` alone, on no neighbour."""
    sample: bool
    """Sample the token after the last one; False for a chunk that does not end its prompt."""
    drafts: int = 0
    """So many of the ``count`` tokens, the last, are guesses. To verify them, sample after the token before
    them and after each, always as if the row ended there, for as long as the sample is the next guess."""
    mask: Callable[[], memoryview] | None = None
    """Where the answer is constrained: waits for the bit mask of the tokens that may be sampled, which is
    being computed; so call it as late as you can. Token ``i`` is bit ``i % 32`` of native int32 ``i // 32``.
    All others are impossible, whatever biases and penalties say, and stop tokens need no further ban."""
    prompt_logprobs: bool = False
    """Report log-probabilities of the prompt's tokens among positions ``start + 1`` to ``start + count``."""


class Sampled(Struct, frozen=True, kw_only=True):
    """The result for one row."""

    token_id: int | None = None
    """``None`` where the row asked for no sample. After drafts: the first sample that was not the guess, or
    the one after the last of them."""
    accepted: int = 0
    """How many of the row's drafts were sampled; they come before ``token_id``."""
    logprob: TokenLogprob | None = None
    """Where ``sampling.logprobs`` asks: by the model's own distribution, before temperature and penalties."""
    accepted_logprobs: list[TokenLogprob] = []
    """The same for each accepted draft."""
    prompt_logprobs: list[TokenLogprob] = []
    """Of the prompt tokens at positions ``start + 1`` to ``start + count``, where the row asked for them."""


class ModelRunner(Protocol):
    """A device with a model on it. All methods are called from one thread, which is not the event loop's.

    One that has the attribute ``verifies_drafts = True`` is given rows with `Row.drafts`, one that has
    ``applies_masks = True`` rows with `Row.mask`.
    """

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        """Read the weights; raises `fllm.UserError` for what the user can mend."""
        ...

    def allocate(self, block_size: int) -> int:
        """Allocate the KV cache in blocks of ``block_size`` tokens, once after `load`; give how many fit."""
        ...

    def execute(self, batch: Sequence[Row]) -> Sequence[Sampled]:
        """Run the model once over all rows and sample; one result for each row, in the order of the rows.

        Rows may share blocks: a row may read what an earlier row of the same batch writes, so each layer
        writes the KV pairs of all rows before it attends. No row's result may depend on the others.
        """
        ...

    def close(self) -> None:
        """Give the device's memory back; called once, after the last `execute`."""
        ...
