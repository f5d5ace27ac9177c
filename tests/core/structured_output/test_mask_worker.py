"""Threads of matchers: order, low priority for slow ones, and an engine that does not wait for long."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread, get_native_id

import pytest

from fllm.concurrency.hung_threads import MAX_HUNG_OF_CLIENT
from fllm.structured_output import mask_worker
from fllm.structured_output.mask_worker import ABANDONED_NICENESS, MAX_WAIT, SLOW_NICENESS, MaskWorker


class Task:
    """Records its calls, with the niceness of their thread."""

    def __init__(
        self, name: str = "", *, slow: bool = False, run: Callable[[], object] = lambda: None
    ) -> None:
        self.client = name[:1]
        self.slow = slow
        self.done = Event()
        self.overdue = self.cancelled = False
        self._name = name
        self._run = run
        self.calls: list[str] = []
        self.niceness: list[int] = []

    def accept(self) -> bool:
        self.calls.append("accept")
        return True

    def fill(self) -> None:
        self._run()
        self.calls.append("fill")
        self.niceness.append(os.getpriority(os.PRIO_PROCESS, get_native_id()))
        self.done.set()

    def is_overdue(self, cpu_seconds: float, seconds: float) -> bool:
        return self.overdue


@pytest.fixture
def release() -> Iterator[Event]:
    """Return the event that ends blocked tasks."""
    event = Event()
    yield event
    event.set()


def spin_until(event: Event) -> None:
    while not event.is_set():
        pass


def test_a_token_is_accepted_before_its_mask_is_computed() -> None:
    worker, task = MaskWorker(), Task()
    worker.submit(task, accept=True)
    assert task.done.wait(10)
    assert task.calls == ["accept", "fill"]


def test_tokens_are_accepted_before_the_masks_of_others_are_computed(release: Event) -> None:
    worker, order = MaskWorker(), list[str]()
    blocking = Task(run=release.wait)
    worker.submit(blocking, accept=False)
    first, second = (Task(name, run=lambda name=name: order.append(name)) for name in ("mask", "token"))
    second.accept = lambda: bool(order.append("accepted")) or True  # type: ignore[method-assign]
    worker.submit(first, accept=False)
    worker.submit(second, accept=True)
    release.set()
    assert second.done.wait(10)
    assert order == ["accepted", "mask", "token"]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities only on Linux")
def test_slow_tasks_run_at_a_low_priority() -> None:
    worker, own = MaskWorker(), os.getpriority(os.PRIO_PROCESS, 0)
    fast, slow = Task(), Task(slow=True)
    for task in (fast, slow):
        worker.submit(task, accept=True)
        assert task.done.wait(10)
    assert (fast.niceness, slow.niceness) == ([own], [max(own, SLOW_NICENESS)])


@pytest.mark.parametrize("slow", [False, True])
def test_tasks_take_turns_by_client(release: Event, *, slow: bool) -> None:
    worker, order = MaskWorker(), list[str]()
    worker.submit(Task(slow=slow, run=release.wait), accept=False)
    names = ("a1", "a2", "a3", "b1")
    tasks = [Task(name, slow=slow, run=lambda name=name: order.append(name)) for name in names]
    for task in tasks:
        worker.submit(task, accept=False)
    release.set()
    assert all(task.done.wait(10) for task in tasks)
    assert order == ["a1", "b1", "a2", "a3"]


def test_slow_tasks_do_not_delay_fast_ones(release: Event) -> None:
    worker = MaskWorker()
    slow, fast = Task(slow=True, run=release.wait), Task()
    worker.submit(slow, accept=False)
    worker.submit(fast, accept=True)
    assert fast.done.wait(10)
    assert not slow.done.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have clocks and priorities only on Linux")
def test_a_task_that_computes_for_long_keeps_its_thread_at_a_low_priority(release: Event) -> None:
    worker = MaskWorker()
    long, after = Task(run=lambda: spin_until(release)), Task()
    worker.submit(long, accept=False)
    worker.submit(after, accept=False)
    while not after.done.is_set():
        worker.wait(after.done)
    release.set()
    assert long.done.wait(10)
    assert long.niceness == [ABANDONED_NICENESS]


def test_an_overdue_task_is_abandoned(release: Event) -> None:
    worker = MaskWorker()
    for slow in (False, True):
        hung, after = Task(slow=slow, run=release.wait), Task(slow=slow)
        worker.submit(hung, accept=False)
        worker.submit(after, accept=False)
        worker.check()
        assert not after.done.wait(0.05)
        hung.overdue = True
        while not after.done.wait(0.01):
            worker.check()


def test_threads_that_hang_are_counted_until_they_end(release: Event) -> None:
    worker = MaskWorker()
    for _ in range(MAX_HUNG_OF_CLIENT):
        assert not worker.hung.too_many("a")
        started = Event()
        hung = Task("a", run=lambda started=started: started.set() or release.wait())
        hung.overdue = True
        worker.submit(hung, accept=False)
        assert started.wait(10)
        worker.check()
    assert worker.hung.too_many("a")
    assert not worker.hung.too_many("b")
    release.set()
    while worker.hung.too_many("a"):
        worker.check()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have clocks only on Linux")
def test_long_jobs_of_sequences_that_ended_count_at_once(release: Event) -> None:
    worker, started = MaskWorker(), list[str]()
    tasks = [
        Task("a", run=lambda: started.append("a") or spin_until(release)) for _ in range(MAX_HUNG_OF_CLIENT)
    ]
    for task in tasks:
        worker.submit(task, accept=False)
    while len(started) < len(tasks):
        worker.check()
        time.sleep(0.001)
    assert not worker.hung.too_many("a")
    for task in tasks:
        task.cancelled = True
    end = time.monotonic() + 30
    while not worker.hung.too_many("a") and time.monotonic() < end:
        worker.check()
        time.sleep(0.001)
    assert worker.hung.too_many("a")


def test_the_waits_for_many_tasks_add_up_to_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    class Late(Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal now
            assert timeout is not None
            now += timeout
            return False

    monkeypatch.setattr(mask_worker.time, "monotonic", lambda: now)
    worker, waited = MaskWorker(), 0.0
    for _ in range(100):
        for _ in range(32):
            before = now
            assert not worker.wait(Late())
            waited += now - before
        now += 0.02  # a step
    assert waited == pytest.approx(MAX_WAIT + 0.1 * (now - 100.0), rel=0.1)


def test_waiting_ends_as_soon_as_the_task_is_done() -> None:
    worker, task = MaskWorker(), Task(run=lambda: time.sleep(0.001))
    worker.submit(task, accept=True)
    while not worker.wait(task.done):
        pass
    assert task.calls == ["accept", "fill"]


def test_the_priority_of_a_thread_that_has_ended_meanwhile_is_left_alone() -> None:
    thread = Thread(target=int)
    thread.start()
    thread.join()
    mask_worker._set_niceness(thread, ABANDONED_NICENESS)


def test_two_threads_that_wake_a_lane_start_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[SlowStart] = []

    class SlowStart(mask_worker._WorkerThread):
        def __init__(self, next_job: Callable[[], mask_worker.Job | None], niceness: int) -> None:
            time.sleep(0.1)
            super().__init__(next_job, niceness)
            started.append(self)

    monkeypatch.setattr(mask_worker, "_WorkerThread", SlowStart)
    lane = mask_worker._Lane(lambda: None)
    threads = [Thread(target=lane.wake) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    started[0].retire()
