"""The limits that a child sets for itself."""

from __future__ import annotations

import errno
import resource
import sys

import pytest
from msgspec.structs import replace

from fllm.sandbox import ResourceLimits, child
from fllm.sandbox.child import ASSUMED_MEMORY, confine

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


def test_without_proc_an_assumed_size_limits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", found.__setitem__)

    def missing(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(child, "open", missing, raising=False)
    assert confine(LIMITS) == []
    assert found[resource.RLIMIT_AS] == (ASSUMED_MEMORY + LIMITS.memory,) * 2


def test_what_the_system_does_not_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(resource, "setrlimit", forbidden)
    assert confine(LIMITS) == ["memory", "writing files"]
    monkeypatch.setattr(child.signal, "setitimer", forbidden)
    monkeypatch.setitem(sys.modules, "resource", None)  # as on a system without it
    limits = replace(LIMITS, allow_files=False)
    assert confine(limits) == ["CPU time", "memory", "writing files", "opening files"]
