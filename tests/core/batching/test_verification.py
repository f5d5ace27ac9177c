from __future__ import annotations

import pytest

from fllm.batching.runner import Row, Sampled
from fllm.batching.verification import expand_drafts, num_samples, verify_drafts
from fllm.values import SamplingParams, TokenLogprob


def row(*, drafts: int = 0, sample: bool = True) -> Row:
    """The token 3 at position 2, and drafts after it."""
    return Row(
        token_ids=[1, 2, 3, 4, 5, 6][: 3 + drafts], prompt_length=2, start=2, count=1 + drafts,
        block_table=[0], sampling=SamplingParams(max_tokens=9), seed=0, sample=sample, drafts=drafts,
    )  # fmt: skip


def test_a_row_ends_after_its_last_certain_token_and_after_each_draft():
    assert [(end.start + end.count, end.drafts) for end in expand_drafts(row(drafts=2))] == [
        (3, 0),
        (4, 0),
        (5, 0),
    ]
    assert expand_drafts(row()) == [row()]
    assert expand_drafts(row(sample=False)) == []
    assert [num_samples(each) for each in (row(drafts=2), row(), row(sample=False))] == [3, 1, 0]


@pytest.mark.parametrize(
    ("sampled", "accepted", "token"),
    [([4, 5, 6, 7], 3, 7), ([4, 5, 9, 7], 2, 9), ([9, 5, 6, 7], 0, 9), ([4, 9, 6, 9], 1, 9)],
)
def test_drafts_are_accepted_up_to_the_first_that_is_not_sampled(
    sampled: list[int], accepted: int, token: int
):
    logprobs = [TokenLogprob(each, -1.0) for each in sampled]
    assert verify_drafts(row(drafts=3), sampled, logprobs, []) == Sampled(
        token_id=token,
        logprob=TokenLogprob(token, -1.0),
        accepted=accepted,
        accepted_logprobs=logprobs[:accepted],
    )


def test_a_row_without_drafts_gives_what_was_sampled_if_anything():
    assert verify_drafts(row(), [8], [None], []) == Sampled(token_id=8)
    assert verify_drafts(row(sample=False), [], [], []) == Sampled()
