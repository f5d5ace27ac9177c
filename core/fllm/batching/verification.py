"""For runners that verify drafts: a row with drafts is sampled like several rows, each a token longer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from msgspec.structs import replace

from fllm.batching.runner import Row, Sampled
from fllm.values import TokenLogprob


def samples(row: Row) -> int:
    """After how many of its last tokens a row is to be sampled."""
    return row.drafts + 1 if row.sample else 0


def ends(row: Row) -> list[Row]:
    """The row as it would be, if it ended at each token that is to be sampled after; the shortest first."""
    if not row.drafts:
        return [row] * samples(row)
    return [replace(row, count=row.count - left, drafts=0) for left in range(row.drafts, -1, -1)]


def verified(
    row: Row,
    tokens: Sequence[int],
    logprobs: Sequence[TokenLogprob | None],
    prompt_logprobs: list[TokenLogprob],
) -> Sampled:
    """The row's result, from what was sampled at each of its `ends`."""
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
