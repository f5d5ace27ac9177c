"""A thread that computes bitmasks while the device computes logits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Event, Thread

MASK_TIMEOUT = 0.5
"""Seconds that a batch waits for one mask. A mask usually takes microseconds."""


class MaskWorker:
    """Runs small jobs in order. If a job hangs, a new thread runs the jobs after it.

    Only the engine thread calls `submit` and `replace_thread`.
    """

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._wake = Event()
        """Wakes the current thread. Each thread has its own, and ends when it is replaced."""
        self._thread: Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run the job after those submitted before."""
        self._jobs.append(job)
        if self._thread is None:
            self._start()
        self._wake.set()

    def replace_thread(self) -> None:
        """Abandon the current job, which hangs, and run the others in a new thread."""
        self._start()
        self._wake.set()

    def _start(self) -> None:
        wake = self._wake = Event()
        self._thread = Thread(target=self._run, args=(wake,), name="fllm-masks", daemon=True)
        self._thread.start()

    def _run(self, wake: Event) -> None:
        while wake is self._wake:
            wake.wait()
            wake.clear()
            while wake is self._wake and self._jobs:
                self._jobs.popleft()()
