"""Threads that run the matchers of grammars while the device computes logits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Event, Lock, Thread, get_ident
from typing import Protocol

from msgspec import Struct

from fllm.concurrency.hung_threads import HungThreads
from fllm.concurrency.round_robin_queue import RoundRobinQueue

WAIT_SHARE = 0.1
"""Share of its time for which the engine may wait for matchers, whatever their number."""
MAX_WAIT = 0.05
"""Seconds for which the engine may wait at once, if it has waited for little before. On a busy machine, a
thread may need a few milliseconds until it runs."""
MAX_DELAY = 0.01
"""Seconds of processor time for which a job may delay those after it. A job usually takes microseconds."""
SLOW_NICENESS = 19
"""Niceness of the thread of slow matchers: it runs while the model leaves a core idle."""
ABANDONED_NICENESS = 19
"""Niceness of a thread that another one has replaced."""


class MaskTask(Protocol):
    """What one sequence needs for its next token. A worker thread calls `accept` and `fill`."""

    @property
    def client(self) -> str:
        """Client of the sequence."""
        ...

    @property
    def slow(self) -> bool:
        """Whether others must not wait for this matcher."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether the sequence has ended."""
        ...

    def accept(self) -> bool:
        """Advance the matcher by the sampled token. Return False if no mask is needed after it."""
        ...

    def fill(self) -> None:
        """Compute the mask of the next token."""
        ...

    def is_overdue(self, cpu_seconds: float, seconds: float) -> bool:
        """Return whether a call takes too much, which has taken this long so far. If so, fail."""
        ...


Job = tuple[MaskTask, Callable[[], None]]


class MaskWorker:
    """Runs jobs in one thread, those of slow matchers in another one. Clients take turns in both.

    A job that takes long keeps its thread, at low priority, and a new thread runs the jobs after it. Only the
    engine thread calls the public methods.
    """

    def __init__(self, wake_engine: Callable[[], None] = lambda: None) -> None:
        self.wake_engine = wake_engine
        """Function that ends the sleep of the engine, which waits for a task. Any thread may call it."""
        self._accepts: RoundRobinQueue[Job] = RoundRobinQueue()
        self._fills: RoundRobinQueue[Job] = RoundRobinQueue()
        self._slow_jobs: RoundRobinQueue[Job] = RoundRobinQueue()
        self._fast = _Lane(self._next_fast_job)
        self._slow = _Lane(self._slow_jobs.pop, SLOW_NICENESS)
        self._abandoned: list[_WorkerThread] = []
        self.hung = HungThreads()
        """Abandoned threads whose jobs are overdue, or whose sequences have ended, since a client that leaves
        early must not start more of them. No new sequence should start if they are too many."""
        self._allowance = MAX_WAIT
        """Seconds for which the engine may still wait."""
        self._allowance_at = time.monotonic()

    def submit(self, task: MaskTask, *, accept: bool) -> None:
        """Compute the next mask; ``accept``: advance the matcher before, ahead of the masks of others."""
        if not accept:
            self._submit_fill(task)
        elif task.slow:
            self._submit_slow(task, partial(self._accept, task))
        else:
            self._accepts.put(task.client, (task, partial(self._accept, task)))
            self._fast.wake()

    def wait(self, event: Event) -> bool:
        """Wait for an event that a task sets. Return whether it is set.

        All waits together take no more than `WAIT_SHARE` of the time.
        """
        if event.is_set():
            return True
        start = time.monotonic()
        self._allowance = min(MAX_WAIT, self._allowance + WAIT_SHARE * (start - self._allowance_at))
        now, end = start, start + self._allowance
        while now < end and not event.wait(min(end - now, self._fast.patience)):
            self._replace_delayed()
            now = time.monotonic()
        self._allowance_at = time.monotonic()
        self._allowance = max(end - self._allowance_at, 0.0)
        return event.is_set()

    def check(self) -> None:
        """Fail the sequences whose jobs take too much, and let the jobs after them run."""
        self._replace_delayed()
        for lane in (self._fast, self._slow):
            if lane.is_overdue():
                self._abandoned.append(lane.replace_thread())
        if self._abandoned:
            self._abandoned = [thread for thread in self._abandoned if thread.alive]
            jobs = (thread.running for thread in self._abandoned)
            self.hung = HungThreads(
                job.task.client for job in jobs if job and (job.overdue or job.task.cancelled)
            )

    def _replace_delayed(self) -> None:
        if self._fast.patience <= 0:
            self._abandoned.append(self._fast.replace_thread())

    def _next_fast_job(self) -> Job | None:
        return self._accepts.pop() or self._fills.pop()

    def _accept(self, task: MaskTask) -> None:
        if task.accept():
            self._submit_fill(task)

    def _submit_fill(self, task: MaskTask) -> None:
        if task.slow:
            self._submit_slow(task, task.fill)
        else:
            self._fills.put(task.client, (task, task.fill))
            self._fast.wake()

    def _submit_slow(self, task: MaskTask, run: Callable[[], None]) -> None:
        self._slow_jobs.put(task.client, (task, run))
        self._slow.wake()


class _Lane:
    """A queue and the thread that runs its jobs, which starts at the first one.

    Any thread may call `wake`. Only the engine thread calls the other methods.
    """

    def __init__(self, next_job: Callable[[], Job | None], niceness: int = 0) -> None:
        self._next_job = next_job
        self._niceness = niceness
        self._lock = Lock()
        """Guards ``_thread``, which a worker thread must not see while it is replaced."""
        self._thread: _WorkerThread | None = None

    @property
    def patience(self) -> float:
        """Seconds of processor time until the current job delays the others."""
        running = self._thread and self._thread.running
        return MAX_DELAY - running.cpu_seconds if running else MAX_DELAY

    def is_overdue(self) -> bool:
        """Return whether the current job takes too much."""
        running = self._thread and self._thread.running
        return bool(running and running.overdue)

    def wake(self) -> None:
        """Run the jobs in the queue."""
        with self._lock:
            if self._thread is None:
                self._thread = _WorkerThread(self._next_job, self._niceness)
            self._thread.wake()

    def replace_thread(self) -> _WorkerThread:
        """Run the jobs after the current one in a new thread. Return the old one."""
        with self._lock:
            old, self._thread = self._thread, None
        assert old is not None, "it runs a job"
        old.retire()
        self.wake()
        return old


class _Running(Struct, frozen=True):
    """A job that a thread runs, and when it began."""

    task: MaskTask
    clock: int | None
    """Clock of the thread's processor time, if the system has one."""
    cpu_start: float
    start: float

    @property
    def cpu_seconds(self) -> float:
        return _cpu_time(self.clock) - self.cpu_start

    @property
    def overdue(self) -> bool:
        """Whether it takes too much. If so, its sequence fails."""
        return self.task.is_overdue(self.cpu_seconds, time.monotonic() - self.start)


class _WorkerThread:
    """A thread that runs jobs until it is retired."""

    def __init__(self, next_job: Callable[[], Job | None], niceness: int) -> None:
        self._next_job = next_job
        self._niceness = niceness
        self._wake = Event()
        self._retired = False
        self.running: _Running | None = None
        self._thread = Thread(target=self._run, name="fllm-masks", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        self._wake.set()

    def retire(self) -> None:
        """End after the current job, which has a low priority from now on."""
        self._retired = True
        self._wake.set()
        _set_niceness(self._thread, ABANDONED_NICENESS)

    def _run(self) -> None:
        if self._niceness:
            _set_niceness(self._thread, self._niceness)
        clock = _thread_clock()
        while not self._retired:
            self._wake.wait()
            self._wake.clear()
            while not self._retired and (job := self._next_job()):
                task, run = job
                self.running = _Running(task, clock, _cpu_time(clock), time.monotonic())
                run()
                self.running = None


def _thread_clock() -> int | None:
    """Return the clock of the calling thread's processor time. It stays valid when the thread has ended."""
    return time.pthread_getcpuclockid(get_ident()) if sys.platform == "linux" else None


def _cpu_time(clock: int | None) -> float:
    """Return what a clock shows, in seconds. A thread that has ended has used no more."""
    if clock is None:
        return time.monotonic()
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0


def _set_niceness(thread: Thread, niceness: int) -> None:
    """Lower a thread's priority, unless it has ended. Only Linux has priorities of threads."""
    if sys.platform == "linux" and thread.native_id is not None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread.native_id, niceness)
