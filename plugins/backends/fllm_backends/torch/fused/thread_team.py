"""How threads share the work of a phase.

A phase is divided into pieces. A thread takes the next that nobody has taken, until there is none, and goes
on when all are done: by whom does not matter, so a thread whose core is busy with something else is waited
for only if it holds a piece.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fllm_backends.torch.fused.intrinsics import address, atomic_add, atomic_load, give_way, pause
from fllm_backends.torch.fused.jit import kernel

PATIENCE = 2000
"""Rounds of waiting before the core is given away."""
LINE = 64
"""Bytes for the counts of a phase: a line of the cache, so that phases do not disturb each other."""


class Team(NamedTuple):
    """A thread, and what it has in common with the others."""

    thread: int
    threads: int
    counts: NDArray[np.int64]
    """[phases, LINE / 8]: pieces taken and pieces done, from zero."""


def counts(phases: int) -> NDArray[np.int64]:
    """For a new `Team`."""
    return np.zeros((phases, LINE // 8), np.int64)


@kernel(fast=False)
def take(team: Any, phase: Any) -> Any:
    """The next piece of a phase."""
    return atomic_add(address(team.counts) + LINE * phase, 1)


@kernel(fast=False)
def finish(team: Any, phase: Any, mine: Any, pieces: Any) -> None:
    """Report the pieces that this thread has done, and wait until all are."""
    done = address(team.counts) + LINE * phase + 8
    if mine:
        atomic_add(done, mine)
    waited = 0
    while atomic_load(done) < pieces:
        pause()
        waited += 1
        if waited > PATIENCE:
            give_way()


@kernel(fast=False)
def at_once(total: Any, team: Any) -> Any:
    """Of so many units of work, how many make a piece: few enough that the threads end together."""
    return min(max(total // (8 * team.threads), 1), 32)
