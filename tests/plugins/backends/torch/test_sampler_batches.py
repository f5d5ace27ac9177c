"""A batch gives the tokens that its rows give one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.logit_processors import process_logits
from fllm_backends.torch.sampler import sample
from fllm_backends.torch.single_row_sampler import draw_token, seeded_uniform

EOS = (0,)
ASKED: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 0.3},
    {"temperature": 1e-38},
    {"top_k": 40},
    {"top_k": 1},
    {"top_k": 2000, "temperature": 1.5},
    {"top_p": 0.9},
    {"top_p": 0.01},
    {"top_k": 5, "top_p": 0.5},
    {"min_p": 0.1, "temperature": 1.7},
    {"min_p": 0.02, "top_p": 0.8},
    {"frequency_penalty": 1.5},
    {"repetition_penalty": 1.3, "top_p": 0.5},
    {"min_tokens": 4, "logit_bias": {17: 3.0}},
    {"temperature": 0, "presence_penalty": 2.0},
]


def row(seed: int, **sampling: Any) -> Row:
    return Row(
        token_ids=[5, 6, 4, 4], prompt_length=2, start=3, count=1, block_table=[0],
        sampling=SamplingParams(max_tokens=100, **sampling), seed=seed, sample=True,
    )  # fmt: skip


def rows(seed: int, *asked: dict[str, Any]) -> list[Row]:
    return [row(seed + at, **own) for at, own in enumerate(asked)]


def one_by_one(batch: list[Row], logits: torch.Tensor) -> list[int]:
    tokens = []
    for own, scores in zip(batch, logits, strict=True):
        adjusted = process_logits(own, scores, EOS)
        number = seeded_uniform(own.seed, own.start + own.count)
        greedy = own.sampling.temperature == 0
        tokens.append(int(adjusted.argmax() if greedy else draw_token(adjusted, own.sampling, number)))
    return tokens


@pytest.mark.parametrize("seed", range(0, 1000, 20))
def test_every_mixture_gives_the_tokens_of_its_rows(seed: int) -> None:
    batch = rows(seed, *ASKED)
    logits = 3 * torch.randn(len(batch), 3000, generator=torch.Generator().manual_seed(seed))
    assert sample(batch, logits, EOS) == one_by_one(batch, logits)


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_one_row_is_a_batch_too(asked: dict[str, Any]) -> None:
    for seed in range(20):
        batch = rows(seed, asked)
        logits = 3 * torch.randn(1, 3000, generator=torch.Generator().manual_seed(seed))
        assert sample(batch, logits, EOS) == one_by_one(batch, logits)


def test_neighbours_change_nothing() -> None:
    batch = rows(7, *ASKED)
    logits = 3 * torch.randn(len(batch), 3000, generator=torch.Generator().manual_seed(7))
    alone = [sample([own], logits[at : at + 1], EOS)[0] for at, own in enumerate(batch)]
    assert sample(batch, logits, EOS) == alone


def test_top_p_reaches_beyond_the_first_thousand_of_a_flat_distribution() -> None:
    logits = torch.randn(40, 4000, generator=torch.Generator().manual_seed(1)) * 0.01
    batch = [row(seed, top_p=0.9 if seed % 2 else 0.1) for seed in range(40)]
    tokens = sample(batch, logits, EOS)
    assert tokens == one_by_one(batch, logits)
    assert any((logits[at] > logits[at, token]).sum() > 1024 for at, token in enumerate(tokens))


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=40),
    st.lists(
        st.tuples(
            st.integers(0, 1000), st.floats(0.05, 3), st.integers(-1, 50), st.floats(0.05, 1), st.floats(0, 1)
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_with_any_parameters_a_row_does_not_depend_on_its_neighbours(
    values: list[float], asked: list[tuple[int, float, int, float, float]]
) -> None:
    batch = [
        row(seed, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        for seed, temperature, top_k, top_p, min_p in asked
    ]
    logits = torch.tensor([values] * len(batch))
    assert sample(batch, logits, EOS) == [sample([own], logits[:1], EOS)[0] for own in batch]


def test_overflowed_logits_still_give_a_token() -> None:
    batch = rows(0, {}, {"top_p": 0.5}, {"temperature": 0})
    assert set(sample(batch, torch.full((3, 2), math.nan), EOS)) <= {0, 1}


def test_the_logits_themselves_stay_as_they_are() -> None:
    batch = rows(0, *ASKED)
    logits = torch.randn(len(batch), 50)
    before = logits.clone()
    sample(batch, logits, EOS)
    assert torch.equal(logits, before)
