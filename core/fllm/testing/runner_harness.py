"""A loaded model runner for `ModelRunnerContract`, and sequences to run on it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from fllm.batching.runner import ModelRunner, Row, Sampled
from fllm.values import Progress, SamplingParams

MIN_BLOCKS = 48
"""Number of KV blocks that the contract needs."""


class RunnerSequence:
    """One sequence: its tokens, and how many of them are computed."""

    def __init__(
        self,
        token_ids: Sequence[int],
        block_table: Sequence[int],
        seed: int,
        sampling: SamplingParams,
        mask: memoryview | None = None,
    ) -> None:
        self.token_ids = [*token_ids]
        self.block_table = [*block_table]
        self.results: list[Sampled] = []
        self.num_computed = 0
        self._prompt_length = len(self.token_ids)
        self._seed = seed
        self._sampling = sampling
        self._mask = mask

    @property
    def output_token_ids(self) -> list[int]:
        """Generated tokens so far."""
        return self.token_ids[self._prompt_length :]

    def next_row(self, size: int | None = None) -> Row:
        """Return a row of the next ``size`` tokens, or of all that are left."""
        start, left = self.num_computed, len(self.token_ids) - self.num_computed
        size = min(size or left, left)
        self.num_computed += size
        return self._row(start, size, sample=size == left)

    def last_token_row(self) -> Row:
        """Return a row that computes the last token again."""
        return self._row(len(self.token_ids) - 1, 1, sample=True)

    def draft_row(self, drafts: Sequence[int]) -> Row:
        """Return a row of the last token and drafts of the next ones."""
        row = self._row(len(self.token_ids) - 1, 1 + len(drafts), sample=True, drafts=len(drafts))
        self.token_ids += drafts
        return row

    def append(self, result: Sampled) -> None:
        """Append the sampled token, if there is one."""
        self.results.append(result)
        if result.token_id is not None:
            self.token_ids.append(result.token_id)

    def _allowed(self) -> memoryview:
        assert self._mask
        return self._mask

    def _row(self, start: int, size: int, *, sample: bool, drafts: int = 0) -> Row:
        return Row(
            token_ids=self.token_ids,
            prompt_length=self._prompt_length,
            start=start,
            count=size,
            block_table=self.block_table,
            sampling=self._sampling,
            seed=self._seed,
            sample=sample,
            drafts=drafts,
            mask=self._allowed if self._mask and sample else None,
            prompt_logprobs=self._sampling.prompt_logprobs is not None and start < self._prompt_length,
        )


class RunnerHarness:
    """A runner whose model is loaded and whose KV blocks are allocated."""

    def __init__(self, runner: ModelRunner, block_size: int) -> None:
        self.runner = runner
        self.block_size = block_size
        self.progress: list[Progress] = []
        self.card = runner.load(self.progress.append)
        self.num_blocks = runner.allocate(block_size)
        self._next = count()

    def sequence(
        self,
        token_ids: Sequence[int],
        *,
        block_table: Sequence[int] | None = None,
        seed: int = 0,
        allowed: Sequence[int] | None = None,
        **sampling: Any,
    ) -> RunnerSequence:
        """Return a sequence, by default greedy, in KV blocks that earlier sequences have written.

        ``allowed``: the only tokens that may be sampled.
        """
        params = SamplingParams(**{"max_tokens": 1000, "temperature": 0.0, "logprobs": 2, **sampling})
        blocks = self.allocate_blocks(len(token_ids) + 16) if block_table is None else block_table
        return RunnerSequence(
            token_ids, blocks, seed, params, None if allowed is None else self.mask(allowed)
        )

    def mask(self, allowed: Sequence[int]) -> memoryview:
        """Return a bitmask of the allowed tokens."""
        words = -(-self.card.runtime["vocab_size"] // 32)
        bits = bytearray(4 * words)
        for token in allowed:
            bits[token // 8] |= 1 << token % 8
        return memoryview(bits).cast("i")

    def allocate_blocks(self, tokens: int) -> list[int]:
        """Return KV blocks for this number of tokens."""
        return [next(self._next) % self.num_blocks for _ in range(-(-tokens // self.block_size))]

    def execute(self, rows: Sequence[Row]) -> list[Sampled]:
        """Execute one batch and return its results."""
        results = self.runner.execute(rows)
        assert len(results) == len(rows), (
            f"execute() must return one result per row: {len(rows)} rows, {len(results)} results"
        )
        return [*results]

    def advance(self, sequences: Sequence[RunnerSequence], size: int | None = None) -> list[Sampled]:
        """Execute one batch with the next ``size`` tokens of each sequence."""
        results = self.execute([sequence.next_row(size) for sequence in sequences])
        for sequence, result in zip(sequences, results, strict=True):
            sequence.append(result)
        return results

    def generate(self, sequences: Sequence[RunnerSequence], tokens: int, size: int | None = None) -> None:
        """Generate ``tokens`` tokens for each sequence; compute its prompt in chunks of ``size``."""
        wanted = {id(sequence): len(sequence.token_ids) + tokens for sequence in sequences}
        while waiting := [
            sequence for sequence in sequences if len(sequence.token_ids) < wanted[id(sequence)]
        ]:
            self.advance(waiting, size)
