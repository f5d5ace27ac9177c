"""The log-probabilities that are reported with a token."""

from __future__ import annotations

import pytest
import torch

from fllm_backends.torch.logprobs import top_logprobs

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 1.0, 2.0]])
LOGPROBS = LOGITS.log_softmax(-1)


def test_the_most_likely_tokens_come_best_first() -> None:
    first, second = top_logprobs(LOGITS, [2, 1], [1, 3])
    assert (first.token_id, first.rank, [i for i, _ in first.top]) == (2, 3, [0])
    assert (second.token_id, second.rank, [i for i, _ in second.top]) == (1, 1, [1, 3, 2])
    assert first.logprob == pytest.approx(float(LOGPROBS[0, 2]))


def test_given_tokens_replace_the_most_likely_ones_in_their_order() -> None:
    first, second = top_logprobs(LOGITS, [0, 1], [2, 0], {1: (3, 0)})
    assert [i for i, _ in first.top] == [0, 1]
    assert [i for i, _ in second.top] == [3, 0]
    assert [value for _, value in second.top] == pytest.approx(LOGPROBS[1, [3, 0]].tolist())
