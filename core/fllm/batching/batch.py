"""The input of one step: its rows, and the sequences that they belong to."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from fllm.batching.runner import Row
from fllm.batching.sequence import Sequence


class Batch(Struct, eq=False):
    """The input of one step: one row for each of its sequences."""

    token_budget: int
    """Number of tokens that may still be added."""
    sequences: list[Sequence] = []
    rows: list[Row] = []

    def add(self, sequence: Sequence, count: int, drafts: list[int], *, sample: bool) -> None:
        """Add a row that computes the sequence's next ``count`` tokens and verifies the drafts after them."""
        self.token_budget -= count + len(drafts)
        self.sequences.append(sequence)
        row = Row(
            token_ids=[*sequence.token_ids, *drafts] if drafts else sequence.token_ids,
            prompt_length=sequence.prompt_length,
            start=sequence.computed,
            count=count + len(drafts),
            block_table=sequence.block_table,
            slot=sequence.slot,
            images=sequence.images,
            sampling=sequence.sampling,
            seed=sequence.seed,
            sample=sample,
            drafts=len(drafts),
            mask=sequence.next_mask if sample and sequence.restricted else None,
            prompt_logprobs=sequence.needs_prompt_logprobs,
            adapter=sequence.adapter,
        )
        self.rows.append(_forced_row(sequence, row) if computes_forced(sequence, row) else row)


def computes_forced(sequence: Sequence, row: Row) -> bool:
    """Return whether the row computes the log-probabilities of tokens that the grammar has forced."""
    return sequence.needs_forced_logprobs and sequence.before_forced <= row.start < sequence.length - 1


def _forced_row(sequence: Sequence, row: Row) -> Row:
    """Return the row with forced tokens as its prompt, whose log-probabilities the runner returns."""
    sampling = replace(sequence.sampling, prompt_logprobs=sequence.sampling.logprobs)
    return replace(row, prompt_length=sequence.length, sampling=sampling, prompt_logprobs=True)
