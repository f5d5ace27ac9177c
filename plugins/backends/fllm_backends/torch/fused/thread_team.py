"""Share the work of a phase among threads.

A phase is divided into pieces. A thread claims the next unclaimed piece until there are none, and goes on
when all are done. It does not matter which thread does a piece, so a thread whose core is busy with other
work is waited for only if it holds one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.intrinsics import address, atomic_add, atomic_load, pause, sched_yield
from fllm_backends.torch.fused.jit import kernel

SPIN_LIMIT = 2000
"""Spins before a waiting thread yields its core."""
CACHE_LINE_BYTES = 64
"""Bytes of a phase's counters: one cache line, so that phases do not share one."""


class ThreadTeam(NamedTuple):
    """A thread, and the counters that it shares with the others."""

    thread: int
    threads: int
    counters: NDArray[np.int64]
    """[phases, CACHE_LINE_BYTES / 8]: pieces claimed, pieces done, then the phase's own."""


def new_counters(phases: int) -> NDArray[np.int64]:
    """Return the counters of a new `ThreadTeam`."""
    return np.zeros((phases, CACHE_LINE_BYTES // 8), np.int64)


@kernel(fastmath=False)
def claim_piece(team: Any, phase: Any) -> Any:
    """Return the next piece of a phase."""
    return atomic_add(address(team.counters) + CACHE_LINE_BYTES * phase, 1)


@kernel(fastmath=False)
def finish_phase(team: Any, phase: Any, completed: Any, pieces: Any) -> None:
    """Report the pieces that this thread has done, and wait until all are done."""
    done_at = address(team.counters) + CACHE_LINE_BYTES * phase + 8
    if completed:
        atomic_add(done_at, completed)
    spins = 0
    while atomic_load(done_at) < pieces:
        pause()
        spins += 1
        if spins > SPIN_LIMIT:
            sched_yield()


@kernel(fastmath=False)
def units_per_piece(units: Any, team: Any) -> Any:
    """Return how many units of work make a piece: few enough that the threads finish together."""
    return min(max(units // (8 * team.threads), 1), 32)
