"""Draft verification for runners: a row with drafts is sampled like several rows, each a token longer."""

from __future__ import annotations

from collections import abc
from itertools import takewhile

from msgspec.structs import replace

from fllm.batching.runner import Row, Sampled
from fllm.values import TokenLogprob


def num_samples(row: Row) -> int:
    """Return after how many of its last tokens the row is sampled."""
    return row.drafts + 1 if row.sample else 0


def expand_drafts(row: Row) -> list[Row]:
    """Return one row without drafts for each sample: the row cut after each token to sample after.

    The shortest row comes first. A row that is not sampled expands to an empty list.
    """
    if not row.drafts:
        return [row] * num_samples(row)
    return [replace(row, count=row.count - left, drafts=0) for left in range(row.drafts, -1, -1)]


def verify_drafts(
    row: Row,
    tokens: abc.Sequence[int],
    logprobs: abc.Sequence[TokenLogprob | None],
    prompt_logprobs: list[TokenLogprob],
) -> Sampled:
    """Return the row's result from what was sampled for each row of `expand_drafts`."""
    if not tokens:
        return Sampled(prompt_logprobs=prompt_logprobs)
    end = row.start + row.count
    drafts = row.token_ids[end - row.drafts : end]
    right = (draft == token for draft, token in zip(drafts, tokens, strict=False))
    accepted = sum(1 for _ in takewhile(bool, right))
    return Sampled(
        token_id=tokens[accepted],
        logprob=logprobs[accepted],
        accepted=accepted,
        accepted_logprobs=[each for each in logprobs[:accepted] if each is not None],
        prompt_logprobs=prompt_logprobs,
    )
