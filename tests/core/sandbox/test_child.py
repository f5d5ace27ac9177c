"""The limits that a child sets for itself."""

from __future__ import annotations

import resource

import pytest

from fllm.sandbox import ResourceLimits
from fllm.sandbox.child import confine

LIMITS = ResourceLimits(
    subject="it", activity="reading", cpu_seconds=1.0, wall_seconds=1.0, memory=4 << 30, output=1
)


@pytest.mark.parametrize("hard_limit", [1 << 30, resource.RLIM_INFINITY])
def test_a_hard_limit_of_memory_is_not_raised(hard_limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard_limit, hard_limit))
    monkeypatch.setattr(resource, "setrlimit", found.__setitem__)
    confine(LIMITS)
    [memory, again] = found[resource.RLIMIT_AS]
    assert memory == again
    if hard_limit == resource.RLIM_INFINITY:
        assert memory > LIMITS.memory
    else:
        assert memory == hard_limit
