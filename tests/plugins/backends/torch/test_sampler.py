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


def row(*output: int, prompt: tuple[int, ...] = (5, 6), seed: int = 0, **sampling: Any) -> Row:
    """A row about to sample the token after ``answer``."""
    tokens = [*prompt, *output]
    return Row(
        token_ids=tokens,
        prompt_length=len(prompt),
        start=len(tokens) - 1,
        count=1,
        block_table=[0],
        sampling=SamplingParams(max_tokens=100, **sampling),
        seed=seed,
        sample=True,
    )


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def shares(scores: torch.Tensor, draws: int = 4000, **sampling: Any) -> list[float]:
    """How often each token is drawn by evenly spaced numbers: its probability to within 1 / draws."""
    parameters = SamplingParams(max_tokens=1, **sampling)
    drawn = [draw_token(scores, parameters, (n + 0.5) / draws).item() for n in range(draws)]
    return [drawn.count(token) / draws for token in range(len(scores))]


def close(*expected: float) -> Any:
    return pytest.approx(list(expected), abs=1e-3)


# Adjustments, in the order in which they are made.


def test_the_repetition_penalty_counts_prompt_and_answer_and_divides_or_multiplies() -> None:
    adjusted = process_logits(row(2, 2, prompt=(1,), repetition_penalty=2.0), logits(3, 3, -3, 3), EOS)
    assert adjusted.tolist() == [3, 1.5, -6, 3]


def test_presence_and_frequency_penalties_count_the_answer_alone() -> None:
    adjusted = process_logits(
        row(2, 2, 3, prompt=(1,), presence_penalty=1, frequency_penalty=0.5), logits(0, 0, 0, 0), EOS
    )
    assert adjusted.tolist() == [0, 0, -2.0, -1.5]


def test_negative_penalties_encourage() -> None:
    adjusted = process_logits(row(1, presence_penalty=-1, frequency_penalty=-0.5), logits(0, 0), EOS)
    assert adjusted.tolist() == [0, 1.5]


def test_a_bias_is_added_before_the_repetition_penalty() -> None:
    adjusted = process_logits(
        row(prompt=(1,), logit_bias={1: 4.0, 0: -1.0}, repetition_penalty=2.0), logits(0, 2), EOS
    )
    assert adjusted.tolist() == [-1, 3]


def test_no_end_is_sampled_before_min_tokens_exist() -> None:
    scores = logits(9, 1, 8, 2)
    options: dict[str, Any] = {"temperature": 0, "min_tokens": 2, "stop_token_ids": (2,)}
    rows = [row(**options), row(3, **options), row(3, 3, **options)]
    assert sample(rows, scores.repeat(3, 1), EOS) == [3, 3, 0]


def test_an_ignored_end_is_an_ordinary_token_before_min_tokens_too() -> None:
    assert process_logits(row(min_tokens=3, ignore_eos=True), logits(2, 1), (0,)).tolist() == [2, 1]


def test_min_tokens_of_a_model_without_an_end_changes_nothing() -> None:
    assert process_logits(row(min_tokens=3), logits(2, 1), ()).tolist() == [2, 1]


def test_the_logits_themselves_stay_as_they_are() -> None:
    scores = logits(3, 1, 2).repeat(2, 1)
    sample([row(1, frequency_penalty=1, temperature=0), row(logit_bias={0: -100}, top_k=2)], scores, EOS)
    assert scores.tolist() == [[3, 1, 2]] * 2


# What may be drawn, and how often.


def test_temperature_sharpens_and_flattens() -> None:
    scores = logits(math.log(0.8), math.log(0.2))
    assert shares(scores) == close(0.8, 0.2)
    assert shares(scores, temperature=0.5) == close(16 / 17, 1 / 17)
    assert shares(scores, temperature=2.0) == close(2 / 3, 1 / 3)


def test_a_tiny_temperature_is_greedy_and_not_a_division_by_zero() -> None:
    assert shares(logits(1, 3, 2), temperature=1e-38) == [0, 1, 0]


def test_top_k_keeps_the_likeliest() -> None:
    scores = logits(*map(math.log, (0.1, 0.4, 0.2, 0.3)))
    assert shares(scores, top_k=2) == close(0, 4 / 7, 0, 3 / 7)
    assert shares(scores, top_k=100) == close(0.1, 0.4, 0.2, 0.3)


@pytest.mark.parametrize(("top_p", "kept"), [(0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.01, 1), (1.0, 4)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: int) -> None:
    probabilities = [0.4, 0.3, 0.2, 0.1]
    scores = logits(*map(math.log, probabilities))
    total = sum(probabilities[:kept])
    expected = [p / total if index < kept else 0 for index, p in enumerate(probabilities)]
    assert shares(scores, top_p=top_p) == close(*expected)


def test_top_p_counts_what_top_k_left() -> None:
    scores = logits(*map(math.log, (0.4, 0.3, 0.2, 0.1)))
    assert shares(scores, top_k=2, top_p=0.5) == close(1, 0, 0, 0)
    assert shares(scores, top_p=0.5) == close(4 / 7, 3 / 7, 0, 0)


def test_top_p_reaches_beyond_the_first_thousand_of_a_flat_distribution() -> None:
    scores = torch.zeros(4000)
    scores[7] = 1.0
    drawn = {
        draw_token(scores, SamplingParams(max_tokens=1, top_p=0.9), n / 5000).item() for n in range(5000)
    }
    assert len(drawn) == pytest.approx(3600, abs=2)


def test_min_p_is_a_share_of_the_likeliest_after_the_temperature() -> None:
    scores = logits(*map(math.log, (0.5, 0.3, 0.15, 0.05)))
    assert shares(scores, min_p=0.25) == close(0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0)
    assert shares(scores, min_p=0.25, temperature=0.5) == close(0.25 / 0.34, 0.09 / 0.34, 0, 0)
    assert shares(scores, min_p=1.0) == close(1, 0, 0, 0)


@given(
    st.lists(st.floats(-20, 20), min_size=2, max_size=40),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.05, 3),
    st.integers(-1, 50),
    st.floats(0.05, 1),
    st.floats(0, 1),
)
def test_no_parameters_draw_a_token_that_they_exclude(
    values: list[float], number: float, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    scores = logits(*values)
    sampling = SamplingParams(max_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    token = int(draw_token(scores, sampling, number))
    probabilities = (scores.double() / temperature).softmax(-1)
    better = probabilities > probabilities[token] * (1 + 1e-5)
    assert probabilities[token] >= min_p * probabilities.max() * (1 - 1e-5)
    assert top_k < 1 or better.sum() < top_k
    if top_k < 1 and not min_p:
        assert probabilities[better].sum() < top_p + 1e-5


def test_a_banned_token_is_never_drawn() -> None:
    scores = logits(5, -math.inf, 5)
    assert shares(scores) == [0.5, 0, 0.5]
    assert shares(scores, top_p=0.99, top_k=3) == [0.5, 0, 0.5]


def test_overflowed_logits_still_give_a_token() -> None:
    scores = logits(math.nan, math.nan)
    for options in ({}, {"top_p": 0.5}, {"temperature": 0}):
        [token] = sample([row(**options)], scores[None], EOS)
        assert token in (0, 1)


# Seeds.


def test_numbers_are_uniform_over_positions_and_over_seeds() -> None:
    for numbers in ([seeded_uniform(3, p) for p in range(2000)], [seeded_uniform(s, 3) for s in range(2000)]):
        tenths = [int(10 * number) for number in numbers]
        assert all(140 < tenths.count(tenth) < 260 for tenth in range(10))
        assert all(0 <= number < 1 for number in numbers)


def test_any_integer_is_a_seed() -> None:
    assert len({seeded_uniform(seed, 1) for seed in (-1, 0, 1, 2**64, 2**64 + 1)}) == 5


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    torch.manual_seed(0)
    scores = torch.randn(200)

    def drawn(seed: int, *output: int) -> int:
        return sample([row(*output, seed=seed)], scores[None], EOS)[0]

    assert drawn(1, 7, 8) == drawn(1, 9, 9)
    assert len({drawn(seed, 7, 8) for seed in range(30)}) > 10
    assert len({drawn(1, *range(length)) for length in range(30)}) > 10


def test_neighbours_change_nothing() -> None:
    torch.manual_seed(0)
    scores = torch.randn(8, 3000)
    rows = [
        row(seed=1),
        row(seed=1, temperature=0),
        row(seed=1, top_k=40),
        row(seed=1, top_p=0.9),
        row(seed=1, min_p=0.1, temperature=1.7),
        row(4, 4, seed=1, frequency_penalty=1.5),
        row(4, 4, seed=2, repetition_penalty=1.3, top_p=0.5),
        row(seed=3, min_tokens=4, logit_bias={17: 3.0}),
    ]
    alone = [sample([own], scores[index : index + 1], EOS)[0] for index, own in enumerate(rows)]
    assert sample(rows, scores, EOS) == alone
    assert sample(rows[::-1], scores.flip(0), EOS) == alone[::-1]


def test_the_greedy_path_is_the_likeliest_of_each_row() -> None:
    scores = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert sample([row(temperature=0), row(temperature=0)], scores, EOS) == [1, 0]
