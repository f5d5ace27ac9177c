"""Masks are computed beside the device, in a thread of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Event, Thread

PATIENCE = 0.5
"""Seconds that a batch waits for one mask. Usual ones take microseconds."""


class MaskThread:
    """Does small jobs, the first first; one that hangs is left alone, and a new thread does the others.

    `begin` and `give_up` are called by the engine's thread, between which and this one nothing else travels.
    """

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._wanted = Event()
        self._thread: Thread | None = None

    def begin(self, job: Callable[[], None]) -> None:
        """Do it after those that were begun before."""
        self._jobs.append(job)
        if self._thread is None:
            self._start()
        self._wanted.set()

    def give_up(self) -> None:
        """The job that is being done hangs."""
        self._start()
        self._wanted.set()

    def _start(self) -> None:
        wanted = self._wanted = Event()
        self._thread = Thread(target=self._run, args=(wanted,), name="fllm-masks", daemon=True)
        self._thread.start()

    def _run(self, wanted: Event) -> None:
        while wanted is self._wanted:
            wanted.wait()
            wanted.clear()
            while wanted is self._wanted and self._jobs:
                self._jobs.popleft()()
