"""A worker for each thread that compiles, so that a hostile constraint keeps no other waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from fllm.sandbox import ResourceLimits, Worker

A = TypeVar("A")
Q = TypeVar("Q")

LIMITS = ResourceLimits(
    subject="the grammar",
    activity="compiling",
    cpu_seconds=0.8,  # a usual schema takes ten milliseconds
    wall_seconds=10.0,
    memory=2 << 30,
    output=256 << 20,
)


class Workers(Generic[A, Q]):
    """As many as there are threads that call `run`.

    None is started early: it needs the vocabulary, and to read one of 49152 tokens holds the GIL for 90 to
    320 ms (to import xgrammar: 12 ms). Done at the start, every server would pay for it, and its first
    requests; so only those pay, once, that constrain answers.
    """

    def __init__(self, make: Callable[[A], Callable[[Q], bytes]], argument: Callable[[], A]) -> None:
        self._make = make
        self._argument = argument
        self._own = threading.local()
        self._all: list[Worker[A, Q]] = []

    def run(self, work: Q) -> bytes:
        """What `Worker.run` does."""
        if not hasattr(self._own, "worker"):
            self._own.worker = Worker(self._make, self._argument, LIMITS)
            self._all.append(self._own.worker)
        worker: Worker[A, Q] = self._own.worker
        return worker.run(work)

    def stop(self) -> None:
        """Kill them all."""
        for worker in self._all:
            worker.stop()
