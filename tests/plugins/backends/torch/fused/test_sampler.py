"""The kernels draw the tokens that `draw_token` draws, in any batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch import logit_masks
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.sampler import KernelSampler
from fllm_backends.torch.sampler import draw_quantile
from fllm_backends.torch.single_row_sampler import draw_token

SIZE = 3001
ASKED: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 1.0},
    {"temperature": 0.2, "top_p": 0.9},
    {"temperature": 1e-38},
    {"top_k": 1},
    {"top_k": 40, "top_p": 0.95},
    {"top_k": 2000, "temperature": 3.0},
    {"top_k": SIZE + 1},
    {"top_p": 0.01},
    {"top_p": 0.999, "temperature": 4.0},
    {"min_p": 0.1, "temperature": 1.7},
    {"min_p": 0.02, "top_p": 0.8, "top_k": 100},
]


def row(seed: int, **sampling: Any) -> Row:
    return Row(
        token_ids=[5, 6, 4, 4], prompt_length=2, start=3, count=1, block_table=[0],
        sampling=SamplingParams(max_tokens=100, **sampling), seed=seed, sample=True,
    )  # fmt: skip


def drawn(own: Row, scores: torch.Tensor) -> int:
    if own.sampling.temperature == 0:
        return int(scores.argmax())
    return int(draw_token(scores, own.sampling, draw_quantile(own)))


@pytest.fixture(scope="module")
def sampler() -> KernelSampler:
    return KernelSampler(KernelThreads(2), SIZE)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spread", [0.5, 4.0, 30.0])
def test_each_row_gets_the_token_that_it_gets_alone(
    sampler: KernelSampler, spread: float, masked: bool
) -> None:
    batch = [row(seed, **asked) for seed, asked in enumerate(ASKED * 4)]
    generator = torch.Generator().manual_seed(int(spread * 2))
    # Well apart, so that rounding changes no order: a permutation of equal steps.
    steps = torch.linspace(-spread, spread, SIZE)
    logits = torch.stack([steps[torch.randperm(SIZE, generator=generator)] for _ in batch])
    allowed = None
    if masked:
        size = len(batch), -(-SIZE // 32)
        allowed = torch.randint(-(2**31), 2**31, size, generator=generator).int()
    together = sampler.sample(batch, logits, allowed)
    scores = logit_masks.apply(allowed, logits)
    assert together == [drawn(*each) for each in zip(batch, scores, strict=True)]
    alone = [
        sampler.sample([own], logits[at : at + 1], None if allowed is None else allowed[at : at + 1])[0]
        for at, own in enumerate(batch)
    ]
    assert together == alone


def test_of_equal_logits_the_first_is_the_most_likely(sampler: KernelSampler) -> None:
    logits = torch.zeros(3, SIZE)
    logits[1, [70, 9, 2000]] = 1
    logits[2] = -math.inf
    rows = [row(1, temperature=0), row(1, top_k=1), row(1, temperature=1.0)]
    assert sampler.sample(rows, logits) == [0, 9, 0]


def test_tokens_are_drawn_as_often_as_they_are_likely(sampler: KernelSampler) -> None:
    logits = torch.full((1, SIZE), -math.inf)
    logits[0, [3, 300, 2999]] = torch.tensor([0.5, 0.3, 0.2]).log()
    for asked in ({}, {"top_p": 0.99999}, {"top_k": 3}):
        batch = [row(seed, **asked) for seed in range(2000)]
        tokens = sampler.sample(batch, logits.expand(len(batch), -1))
        assert sorted(set(tokens)) == [3, 300, 2999]
        assert abs(tokens.count(3) / 2000 - 0.5) < 0.05
        assert abs(tokens.count(300) / 2000 - 0.3) < 0.05
