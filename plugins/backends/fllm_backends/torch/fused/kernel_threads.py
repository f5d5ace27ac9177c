"""The threads that run a kernel together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fllm_backends.torch.cpu_binding import bind_thread
from fllm_backends.torch.fused.thread_team import ThreadTeam, new_counters


class KernelThreads:
    """Runs kernels in the calling thread and in others, which wait for them."""

    def __init__(self, count: int, cpus: Sequence[int] = ()) -> None:
        """Create threads. ``cpus``: that of the calling one, which is not bound, and those of the others."""
        self.count = count
        self._cpus = iter(cpus[1:count])
        self._pool = ThreadPoolExecutor(max(count - 1, 1), "kernels", self._bind)

    def _bind(self) -> None:
        if (cpu := next(self._cpus, None)) is not None:
            bind_thread({cpu})

    def run(
        self, kernel: Callable[..., None], phases: int, *arguments: Any, pieces: int | None = None
    ) -> None:
        """Run a kernel of ``phases`` phases in all threads; return when all pieces are done.

        A thread may not have begun by then: it will find no piece left. No more than
        ``pieces`` threads are woken.
        """
        counters, count = new_counters(phases), min(self.count, pieces or self.count)
        workers = [
            self._pool.submit(kernel, ThreadTeam(thread, count, counters), *arguments)
            for thread in range(1, count)
        ]
        kernel(ThreadTeam(0, count, counters), *arguments)
        for worker in workers:
            worker.cancel()
