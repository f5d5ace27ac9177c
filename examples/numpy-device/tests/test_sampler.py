"""The sampler, without a model."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from fllm_numpy.gguf_file import Array
from fllm_numpy.sampler import sample, token_logprob
from msgspec.structs import replace

from fllm import SamplingParams
from fllm.batching import Row

LIKELY = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
EOS = (0,)


def a_row(*, seed: int = 1, tokens: tuple[int, ...] = (3, 3), prompt: int = 2, **sampling: Any) -> Row:
    return Row(
        token_ids=tokens,
        prompt_length=prompt,
        start=0,
        count=len(tokens),
        block_table=[0],
        sampling=SamplingParams(**({"max_tokens": 9} | sampling)),
        seed=seed,
        sample=True,
    )


def drawn(logits: Array = LIKELY, draws: int = 2000, **sampling: Any) -> Counter[int]:
    return Counter(sample(a_row(seed=seed, **sampling), logits, EOS) for seed in range(draws))


def greedy(**sampling: Any) -> int:
    return sample(a_row(temperature=0, **sampling), LIKELY, EOS)


def test_greedy_takes_the_likeliest() -> None:
    assert greedy() == 0


def test_draws_follow_the_distribution() -> None:
    found = drawn()
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert found[token] / 2000 == pytest.approx(share, abs=0.04)


def test_a_low_temperature_sharpens_the_distribution() -> None:
    assert drawn(temperature=0.5)[0] / 2000 == pytest.approx(0.25 / 0.365, abs=0.04)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.79}, {0, 1}),
        ({"top_p": 0.81}, {0, 1, 2}),
        ({"top_p": 1e-9}, {0}),
        ({"min_p": 0.2}, {0, 1, 2}),
        ({"top_k": 3, "top_p": 0.5}, {0}),
    ],
)
def test_truncation_keeps_exactly_the_likeliest_tokens(sampling: dict[str, Any], kept: set[int]) -> None:
    assert drawn(**sampling).keys() == kept


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    at_two = [sample(a_row(seed=seed), LIKELY, EOS) for seed in range(50)]
    assert at_two == [sample(a_row(seed=seed, tokens=(1, 2), prompt=1), LIKELY, EOS) for seed in range(50)]
    assert at_two != [sample(a_row(seed=seed, tokens=(3, 3, 3)), LIKELY, EOS) for seed in range(50)]


def test_any_integer_is_a_seed() -> None:
    assert {sample(a_row(seed=seed), LIKELY, EOS) for seed in (-1, 2**64, 2**70)} <= {0, 1, 2, 3}


def test_no_stop_token_comes_before_min_tokens() -> None:
    assert greedy(min_tokens=1) == 1
    assert greedy(min_tokens=1, stop_token_ids=(1,)) == 2
    assert greedy(min_tokens=1, ignore_eos=True) == 0
    assert greedy(min_tokens=1, tokens=(3, 3, 3)) == 0  # one token was generated before


def test_a_bias_is_added_to_its_logit() -> None:
    assert greedy(logit_bias={3: 100.0}) == 3
    assert greedy(logit_bias={0: -100.0}) == 1


def test_repetition_penalty_includes_the_prompt_and_the_others_only_the_output() -> None:
    assert greedy(repetition_penalty=4.0, tokens=(0, 3)) == 1
    assert greedy(presence_penalty=2.0, tokens=(0, 3)) == 0
    assert greedy(presence_penalty=2.0, tokens=(3, 0), prompt=1) == 1
    assert greedy(frequency_penalty=0.3, tokens=(3, 0), prompt=1) == 0
    assert greedy(frequency_penalty=0.3, tokens=(3, 0, 0), prompt=1) == 1


def test_a_mask_is_applied_last() -> None:
    def mask() -> memoryview:
        return memoryview(np.array([0b1000], np.int32))

    for sampling in (
        {"temperature": 0},
        {"top_p": 0.1},
        {"logit_bias": {0: 1000.0}},
        {"stop_token_ids": (3,)},
    ):
        row = replace(a_row(min_tokens=5, **sampling), mask=mask)
        assert sample(row, LIKELY, EOS) == 3


def test_a_logprob_is_the_models_own_with_those_of_the_likeliest() -> None:
    found = token_logprob(LIKELY + 5, 2, 2)
    assert found.token_id == 2
    assert found.logprob == pytest.approx(math.log(0.15), abs=1e-5)
    assert [token for token, _ in found.top] == [0, 1]
    assert found.top[1][1] == pytest.approx(math.log(0.3), abs=1e-5)


def test_logits_are_left_as_they_were() -> None:
    before = LIKELY.copy()
    sample(a_row(logit_bias={1: 3.0}, min_tokens=5), LIKELY, EOS)
    assert np.array_equal(LIKELY, before)
