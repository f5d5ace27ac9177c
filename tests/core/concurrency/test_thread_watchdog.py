"""The watchdog of threads. Its limits are so far apart that a busy machine does not matter."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress

import pytest

from fllm.concurrency import thread_watchdog
from fllm.concurrency.thread_watchdog import Interrupt, LimitExceeded, ThreadWatchdog


def compute() -> None:
    while True:
        with suppress(Exception):  # as a template's engine does
            sum(range(100))


def grow() -> None:
    data = b"x" * 1_000_000
    while True:
        data += data
        time.sleep(0.01)


def test_results_and_errors_pass() -> None:
    watchdog = ThreadWatchdog(cpu_seconds=60, memory=1 << 40)
    assert watchdog.run(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        watchdog.run(lambda: 1 / 0)


def test_code_that_computes_for_too_long_is_interrupted_in_any_thread() -> None:
    watchdog = ThreadWatchdog(cpu_seconds=0.3, memory=1 << 40)
    ends: list[str] = []

    def run() -> None:
        with pytest.raises(LimitExceeded) as caught:
            watchdog.run(compute)
        ends.append(str(caught.value))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ends == ["it takes more than 0.3 s"] * 3
    assert watchdog.run(lambda: sum(range(1_000_000))) == 499999500000


def test_waiting_does_not_count() -> None:
    assert ThreadWatchdog(cpu_seconds=0.2, memory=1 << 40).run(lambda: time.sleep(0.6)) is None


def test_code_that_takes_too_much_memory_is_interrupted() -> None:
    with pytest.raises(LimitExceeded, match="more than 64 MiB of memory"):
        ThreadWatchdog(cpu_seconds=60, memory=64 << 20).run(grow)


def test_an_interrupt_does_not_reach_the_code_after_the_function() -> None:
    """Functions end at about the time of the interrupt."""
    watchdog = ThreadWatchdog(cpu_seconds=0.05, memory=1 << 40)
    outcomes = set()
    for _ in range(20):
        end = time.thread_time() + 0.1

        def until(end: float = end) -> str:
            while time.thread_time() < end:
                pass
            return "done"

        try:
            outcomes.add(watchdog.run(until))
        except LimitExceeded:
            outcomes.add("interrupted")
        for _ in range(1000):
            pass
    assert outcomes <= {"done", "interrupted"}


def test_its_thread_ends_when_nothing_runs_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_watchdog, "CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(thread_watchdog, "MAX_IDLE_CHECKS", 3)
    others = set(threading.enumerate())
    watchdog = ThreadWatchdog(cpu_seconds=60, memory=1 << 40)
    for _ in range(2):
        assert watchdog.run(lambda: len(watchdogs(others)) == 1)
        [thread] = watchdogs(others)
        thread.join(30)
        assert not thread.is_alive()


def watchdogs(others: set[threading.Thread]) -> list[threading.Thread]:
    new = set(threading.enumerate()) - others
    return [thread for thread in new if thread.name == "fllm-thread-watchdog"]


def test_traced_functions_end_after_an_interrupt() -> None:
    watchdog = ThreadWatchdog(cpu_seconds=0.05, memory=1 << 40)
    ended: list[bool] = []

    def run() -> None:
        with suppress(LimitExceeded):
            watchdog.run(compute)
        sys.settrace(lambda *_: None)
        ended.append(compute_once() == 4950)
        sys.settrace(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert ended == [True]


def compute_once() -> int:
    return sum(range(100))


class InterruptedLock:
    """Is entered at the second and the third time only to be interrupted."""

    def __init__(self) -> None:
        self._interrupts = iter([False, True, True])

    def __enter__(self) -> None:
        if next(self._interrupts, False):
            raise Interrupt

    def __exit__(self, *_: object) -> None: ...


def test_no_interrupt_leaves_the_run_even_if_two_arrive_while_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watchdog = ThreadWatchdog(cpu_seconds=1.0, memory=1 << 30)
    monkeypatch.setattr(watchdog, "_lock", InterruptedLock())
    with pytest.raises(LimitExceeded):
        watchdog.run(lambda: None)
    monkeypatch.undo()
    assert watchdog.run(lambda: "the next") == "the next"
