"""Drafts that lose time are switched off, whatever they cost; those that gain stay on."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.batching.drafting.draft_account import (
    ALLOWANCE,
    BASELINE_STEPS,
    CLIP,
    MAX_BALANCE,
    MAX_DEBT,
    REFRESH,
    DraftMeter,
    MeanTime,
)

PLAIN = 0.004
"""Seconds of a plain step."""


class Load:
    """Steps of the same number of sequences, whose drafts cost and gain something."""

    def __init__(self, rows: int = 1) -> None:
        self.meter = DraftMeter()
        self.rows = rows
        self.drafted = self.steps = 0
        self.seconds = self.worth = 0.0
        """Time, and how long the tokens would have taken without drafts."""

    def step(self, cost: float, accepted: int, *, context: int = 100, noise: float = 1.0) -> bool:
        """Compute a step. With drafts, it takes ``cost`` plain ones. Return whether it has drafts."""
        drafts = self.meter.allows(self.rows, context)
        seconds = PLAIN * noise * (cost if drafts else 1.0)
        accepted = accepted if drafts else 0
        drafting = PLAIN / 10 if drafts else 0.0
        self.meter.record(
            self.rows, context, seconds, drafting=drafting, drafted=8 * drafts, accepted=accepted
        )
        self.steps += 1
        self.drafted += drafts
        self.seconds += seconds
        self.worth += PLAIN * (1 + accepted / self.rows)
        return drafts

    def run(self, steps: int, cost: float, accepted: int) -> None:
        for _ in range(steps):
            self.step(cost, accepted)


def test_plain_steps_are_measured_before_drafts_are_tried() -> None:
    load = Load()
    drafts = [load.step(1.2, 3) for _ in range(BASELINE_STEPS + 3)]
    assert drafts == [False] * BASELINE_STEPS + [True] * 3


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_drafts_that_gain_stay_on_but_for_a_plain_step_now_and_then(rows: int) -> None:
    load = Load(rows)
    load.run(1000, 1.5, rows)
    assert 1000 - load.drafted <= BASELINE_STEPS + 1000 / REFRESH + 1
    assert not load.meter.is_off


@given(
    phases=st.lists(
        st.tuples(st.integers(1, 900), st.floats(0.9, 12), st.integers(0, 8)), min_size=1, max_size=6
    ),
    rows=st.sampled_from([1, 2, 7]),
)
def test_drafts_never_lose_more_than_a_hundredth_and_a_constant(
    phases: list[tuple[int, float, int]], rows: int
) -> None:
    load = Load(rows)
    for steps, cost, accepted in phases:
        load.run(steps, cost, accepted)
    lost = (load.seconds - load.worth) / PLAIN
    overshoot = max(cost for _, cost, _ in phases) * CLIP
    assert lost <= ALLOWANCE * load.steps + MAX_BALANCE + MAX_DEBT + overshoot


def test_losing_drafts_are_tried_again_rarely_and_come_back_when_they_gain() -> None:
    load = Load()
    load.run(1000, 3.0, 1)
    assert load.meter.is_off
    assert load.drafted < 20
    load.run(2000, 1.5, 4)
    assert not load.meter.is_off
    assert load.drafted > 900


def test_size_classes_are_measured_apart() -> None:
    load = Load(8)
    load.run(300, 4.0, 0)
    assert load.meter.is_off
    load.rows = 1
    load.run(100, 1.2, 3)
    assert not load.meter.is_off
    load.rows = 9
    load.run(10, 4.0, 0)
    assert load.meter.is_off


def test_a_longer_context_is_measured_anew_instead_of_counting_as_a_loss() -> None:
    load = Load()
    load.run(200, 1.3, 2)
    drafts = [load.step(1.3, 2, context=8000, noise=5.0) for _ in range(100)]
    assert drafts[:BASELINE_STEPS] == [False] * BASELINE_STEPS
    assert all(drafts[BASELINE_STEPS : BASELINE_STEPS + REFRESH - 1])


def test_a_slow_machine_now_and_then_does_not_switch_drafts_off() -> None:
    numbers, load = random.Random(0), Load()
    for _ in range(3000):
        load.step(1.4, 1, noise=30.0 if numbers.random() < 0.01 else numbers.uniform(0.8, 1.2))
    assert load.drafted > 2500


def test_the_time_of_a_drafter_that_proposes_nothing_is_a_loss() -> None:
    meter, asked = DraftMeter(), 0
    for _ in range(1000):
        allowed = meter.allows(1, 100)
        asked += allowed
        spent = PLAIN / 2 if allowed else 0.0
        meter.record(1, 100, PLAIN + spent, drafting=spent, drafted=0, accepted=0)
    assert meter.is_off
    assert asked < 50


def test_what_a_drafter_needs_for_a_prompt_is_paid_back_step_by_step() -> None:
    load = Load()
    load.run(BASELINE_STEPS, 1.0, 0)
    load.meter.record(1, 100, 41 * PLAIN, drafting=40 * PLAIN, drafted=0, accepted=0)
    load.run(100, 1.5, 2)
    assert not load.meter.is_off
    assert load.drafted > 90


def test_the_time_of_a_drafter_counts_in_steps_with_prompts_too() -> None:
    load = Load(2)
    load.run(BASELINE_STEPS, 1.0, 0)
    for _ in range(100):
        if load.meter.allows(2, 100):
            load.meter.record_mixed(2, drafting=3 * PLAIN, accepted=2)
    assert load.meter.is_off
    load.meter.record_mixed(5, drafting=PLAIN, accepted=1)  # whose plain steps are not known


def test_a_drafter_that_takes_very_long_is_asked_once() -> None:
    load = Load()
    load.run(1000, 500.0, 8)
    assert load.drafted == 1


def values(mean: MeanTime, seconds: Iterable[float]) -> float:
    for each in seconds:
        mean.add(each)
    return mean.seconds


def test_a_mean_ignores_a_single_long_step_and_follows_many() -> None:
    assert values(MeanTime(), [1.0] * 20 + [1000.0] + [1.0] * 20) < 1.1
    assert values(MeanTime(), [1.0] * 20 + [50.0] * 200) > 45
