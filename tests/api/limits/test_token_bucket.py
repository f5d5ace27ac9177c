from __future__ import annotations

import pytest
from support.clock import Clock

from fllm_api.limits.token_bucket import TokenBucket


def test_it_refills_all_the_time_and_never_above_its_size():
    clock = Clock()
    bucket = TokenBucket(60, clock)
    bucket.take(50)
    assert bucket.level == 10
    clock.now += 0.5
    assert bucket.level == pytest.approx(10.5)
    clock.now += 3600
    assert bucket.level == 60


def test_a_debt_is_waited_for():
    clock = Clock()
    bucket = TokenBucket(120, clock)
    bucket.take(120 + 20)
    assert bucket.level == -20
    assert bucket.seconds_until(1) == pytest.approx(10.5)
    clock.now += bucket.seconds_until(1)
    assert bucket.level == pytest.approx(1)
    assert bucket.seconds_until(0) == 0
