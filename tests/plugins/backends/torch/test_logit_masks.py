"""Tokens that a mask forbids are never sampled, and rows without a mask are unaffected."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
import torch

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch import logit_masks
from fllm_backends.torch.sampler import sample

SIZE, EOS = 70, (0,)


def row(*allowed: int, seed: int = 0, **sampling: Any) -> Row:
    """A row that may sample these tokens; any, if there are none."""
    words = array("i", bytes(12))
    bits = memoryview(words).cast("B")
    for token in allowed:
        bits[token // 8] |= 1 << token % 8
    return Row(
        token_ids=[5, 6],
        prompt_length=1,
        start=1,
        count=1,
        block_table=[0],
        sampling=SamplingParams(max_tokens=9, **sampling),
        seed=seed,
        sample=True,
        mask=(lambda: memoryview(words)) if allowed else None,
    )


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"temperature": 2.0},
        {"top_k": 2},
        {"top_p": 0.3, "min_p": 0.2},
        {"logit_bias": {1: 100.0, 31: -100.0}, "temperature": 0.0},
        {"repetition_penalty": 2.0, "presence_penalty": -2.0, "frequency_penalty": 2.0},
        {"min_tokens": 5, "stop_token_ids": (31, 69)},
    ],
)
def test_only_allowed_tokens_are_sampled_and_others_rows_are_as_they_were(sampling: dict[str, Any]) -> None:
    constrained = [row(31, 69, seed=seed, **sampling) for seed in range(20)]
    free = [row(seed=seed, **sampling) for seed in range(20)]
    logits = torch.randn(40, SIZE, generator=torch.Generator().manual_seed(0))
    rows = [*constrained, *free]
    tokens = sample(rows, logits, EOS, logit_masks.stack(rows, SIZE, logits.device))
    assert set(tokens[:20]) <= {31, 69}
    assert tokens[20:] == sample(free, logits[20:], EOS)


def test_without_a_constrained_row_there_is_no_mask() -> None:
    assert logit_masks.stack([row(), row()], SIZE, torch.device("cpu")) is None
