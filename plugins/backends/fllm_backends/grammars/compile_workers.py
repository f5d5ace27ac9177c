"""Worker processes that compile, so that a hostile constraint does not delay others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from fllm import BackendError, BackendUnavailable
from fllm.sandbox import ResourceLimits, Worker

ArgumentT = TypeVar("ArgumentT")
TaskT = TypeVar("TaskT")

LIMITS = ResourceLimits(
    subject="the grammar",
    activity="compiling",
    cpu_seconds=0.8,  # a typical schema takes 10 ms
    wall_seconds=10.0,
    memory=2 << 30,
    output=256 << 20,
)


class CompileWorkers(Generic[ArgumentT, TaskT]):
    """Runs each task in a worker process that runs no other task meanwhile.

    Workers start on first use, because they need the vocabulary: reading one of 49152 tokens holds the GIL
    for 90 to 320 ms (importing xgrammar: 12 ms). Reading it at start-up would delay every server and its
    first requests; this way, only the first requests with constraints are delayed. From then on, a spare
    worker is ready: a start takes 0.4 s, and a task that exceeds its limits costs a worker.
    """

    def __init__(
        self, factory: Callable[[ArgumentT], Callable[[TaskT], bytes]], argument: Callable[[], ArgumentT]
    ) -> None:
        self._factory = factory
        self._argument = argument
        self._lock = threading.Lock()
        """Guards the attributes below."""
        self._workers: set[Worker[ArgumentT, TaskT]] = set()
        self._ready: list[Worker[ArgumentT, TaskT]] = []
        """Workers that run and have no task."""
        self._starting = False
        """Whether a worker is being started in the background."""
        self._stopped = False

    def run(self, task: TaskT) -> bytes:
        """Run a task in a worker, as `Worker.run` does. Any number of threads may call it."""
        worker = self._take()
        try:
            return worker.run(task)
        finally:
            self._give_back(worker)

    def stop(self) -> None:
        """Stop all workers."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.stop()

    def _take(self) -> Worker[ArgumentT, TaskT]:
        with self._lock:
            if self._stopped:
                raise BackendUnavailable("the engine is stopping")
            if not self._ready:
                return self._new()
            worker = self._ready.pop()
            self._keep_ready(1)
            return worker

    def _give_back(self, worker: Worker[ArgumentT, TaskT]) -> None:
        with self._lock:
            self._store(worker)
            self._keep_ready(2)

    def _store(self, worker: Worker[ArgumentT, TaskT]) -> None:
        """Keep a worker for the next task, if it runs. It may have started while all were stopped."""
        if self._stopped:
            worker.stop()
        if worker.is_running:
            self._ready.append(worker)
        else:
            self._workers.discard(worker)

    def _new(self) -> Worker[ArgumentT, TaskT]:
        worker = Worker(self._factory, self._argument, LIMITS)
        self._workers.add(worker)
        return worker

    def _keep_ready(self, count: int) -> None:
        """Start a worker in the background if fewer are ready."""
        if len(self._ready) < count and not self._starting and not self._stopped:
            with suppress(RuntimeError):  # the system has no more threads: the next task starts a worker
                threading.Thread(target=self._start, name="fllm-spare", daemon=True).start()
                self._starting = True

    def _start(self) -> None:
        with self._lock:
            worker = self._new()
        try:
            with suppress(BackendError, OSError):  # the next task starts a worker, and raises the error
                worker.start()
        finally:
            with self._lock:
                self._starting = False
                self._store(worker)
