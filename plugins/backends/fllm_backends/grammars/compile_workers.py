"""One worker process per compiling thread, so that a hostile constraint does not delay others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

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
    """Runs each thread's tasks in a worker process of its own.

    Workers start on first use, because they need the vocabulary: reading one of 49152 tokens holds the GIL
    for 90 to 320 ms (importing xgrammar: 12 ms). Reading it at start-up would delay every server and its
    first requests; this way, only the first requests with constraints are delayed.
    """

    def __init__(
        self, factory: Callable[[ArgumentT], Callable[[TaskT], bytes]], argument: Callable[[], ArgumentT]
    ) -> None:
        self._factory = factory
        self._argument = argument
        self._local = threading.local()
        self._workers: list[Worker[ArgumentT, TaskT]] = []

    def run(self, task: TaskT) -> bytes:
        """Run a task in the calling thread's worker, as `Worker.run` does."""
        if not hasattr(self._local, "worker"):
            self._local.worker = Worker(self._factory, self._argument, LIMITS)
            self._workers.append(self._local.worker)
        worker: Worker[ArgumentT, TaskT] = self._local.worker
        return worker.run(task)

    def stop(self) -> None:
        """Stop all workers."""
        for worker in self._workers:
            worker.stop()
