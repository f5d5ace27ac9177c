"""The stall detection of the watchdogs."""

from __future__ import annotations

from fllm.concurrency.heartbeat import Heartbeat


def recorded(*signs_of_life: bool) -> Heartbeat:
    heartbeat = Heartbeat(interval=0.5, timeout=1.5)
    for alive in signs_of_life:
        heartbeat.record(alive=alive)
    return heartbeat


def test_silence_is_the_sum_of_the_intervals_since_the_last_sign_of_life() -> None:
    assert recorded(False, True, False, False).silence == 1.0


def test_it_expires_after_the_timeout_and_not_before() -> None:
    assert not recorded(False, False).expired
    assert recorded(False, False, False).expired


def test_a_sign_of_life_starts_the_time_again() -> None:
    assert not recorded(False, False, False, True).expired
