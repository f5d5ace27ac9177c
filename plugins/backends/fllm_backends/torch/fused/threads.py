"""How the threads share a phase's work, and meet after it."""

from __future__ import annotations

from typing import Any

from fllm_backends.torch.fused.compiled import kernel
from fllm_backends.torch.fused.intrinsics import address, atomic_add, atomic_load, give_way, pause

PATIENCE = 2000
"""Rounds of waiting before the core is given away."""


@kernel(fast=False)
def meet(barrier: Any, reached: Any, threads: Any) -> Any:
    """Wait until all threads are here; ``reached`` is the count of arrivals before, the result that after."""
    target = reached + threads
    atomic_add(address(barrier), 1)
    waited = 0
    while atomic_load(address(barrier)) < target:
        pause()
        waited += 1
        if waited > PATIENCE:
            give_way()
    return target


@kernel(fast=False)
def take(turns: Any, phase: Any) -> Any:
    """The next piece of a phase's work."""
    return atomic_add(address(turns) + 8 * phase, 1)
