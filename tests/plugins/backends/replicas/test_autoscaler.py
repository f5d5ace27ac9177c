"""The policy of autoscaling over simulated time: one update per second."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable

import pytest

from fllm.config import Autoscaling
from fllm_backends.replicas.autoscaler import Autoscaler, Load

TARGET = 1000


def policy(least: int = 1, most: int = 4, start: int = 1) -> Autoscaler:
    config = Autoscaling(
        min_replicas=least,
        max_replicas=most,
        target_queued_tokens=TARGET,
        upscale_delay=3,
        downscale_delay=60,
    )
    return Autoscaler(config, start)


def targets(
    scaler: Autoscaler, tokens: Iterable[int], *, requests: Callable[[int], int] = lambda tokens: tokens > 0
) -> list[int]:
    """Return the target after each second with so many queued tokens."""
    return [scaler.update(second, Load(each, requests(each))) for second, each in enumerate(tokens)]


def changes(numbers: Iterable[int]) -> int:
    return sum(before != after for before, after in itertools.pairwise(numbers))


def test_more_queued_tokens_add_replicas_after_the_delay() -> None:
    assert targets(policy(), [2500] * 6) == [1, 1, 1, 3, 3, 3]


def test_a_short_peak_adds_nothing() -> None:
    assert targets(policy(), [4000, 4000, 0, 4000, 4000, 900] * 20) == [1] * 120


def test_the_least_number_of_the_delay_is_added() -> None:
    assert targets(policy(), [4000, 1500, 4000, 4000])[-1] == 2


def test_the_target_stays_between_the_limits() -> None:
    chance = random.Random(0)
    scaler = policy(least=2, most=5, start=2)
    loads = [
        chance.choice([0, 500, 3000, 50_000]) for _ in range(40) for _ in range(chance.randrange(1, 200))
    ]
    reached = set(targets(scaler, loads))
    assert reached == {2, 3, 4, 5} or (min(reached), max(reached)) == (2, 5)


def test_fewer_tokens_remove_replicas_after_the_longer_delay_only() -> None:
    after = targets(policy(start=4), [0] * 61)
    assert after[:60] == [4] * 60
    assert after[60] == 1


def test_the_largest_number_that_was_needed_stays() -> None:
    assert targets(policy(start=4), [0] * 30 + [900] + [0] * 30)[-1] == 2


def test_a_load_between_both_thresholds_changes_nothing() -> None:
    """Two replicas have 600 tokens each: one would be filled over its half, and both have room."""
    assert targets(policy(start=2), [1200] * 500) == [2] * 500


@pytest.mark.parametrize("period", [1, 2, 5, 20, 50])
def test_a_load_that_swings_around_the_threshold_does_not_flap(period: int) -> None:
    loads = ([1100] * period + [900] * period) * (600 // period)
    assert changes(targets(policy(), loads)) <= 1


def test_a_long_request_with_few_tokens_keeps_one_replica() -> None:
    scaler = policy(least=0)
    assert targets(scaler, [16] * 300) == [1] * 300
    assert scaler.update(400, Load(0, 1)) == 1


def test_an_idle_model_goes_to_zero_and_its_next_request_starts_a_replica_at_once() -> None:
    scaler = policy(least=0)
    assert targets(scaler, [0] * 61)[-2:] == [1, 0]
    assert scaler.update(1000, Load(0, 0)) == 0
    assert scaler.update(1001, Load(5, 1)) == 1
    assert scaler.update(1002, Load(5, 1)) == 1


def test_the_minimum_holds_without_requests() -> None:
    assert targets(policy(least=2, start=3), [0] * 200)[-1] == 2
