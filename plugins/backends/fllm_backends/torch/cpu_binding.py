"""``pin_threads``: the cores on which the threads of an engine compute."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from fllm.errors import ConfigError

_OPTION = "--backend-option pin_threads"
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_NODE = re.compile(r"numa:(\d{1,5})")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_NODE_CPUS = "/sys/devices/system/node/node{}/cpulist"


def read_pin_threads(text: str) -> tuple[int, ...]:
    """Return the CPUs to compute on, ascending: all that this process may use for ``on``, none for ``off``.

    ``numa:N`` are those of a NUMA node, and ``0-3,8`` is a list. Raise `ConfigError`.
    """
    if text == "off":
        return ()
    if not hasattr(os, "sched_getaffinity"):
        raise ConfigError(f"{_OPTION}={text}: this system can't bind threads to cores; use off")
    allowed = os.sched_getaffinity(0)
    if text == "on":
        return tuple(sorted(allowed))
    if node := _NODE.fullmatch(text):
        found = _read(_NODE_CPUS.format(int(node[1])))
        if not found:
            raise ConfigError(f"{_OPTION}={text}: there is no NUMA node {node[1]} with CPUs")
        chosen = parse_cpu_list(found)
        chosen &= allowed
    else:
        try:
            chosen = parse_cpu_list(text)
        except ValueError:
            raise ConfigError(
                f"{_OPTION}={text!r}: pass off, on, a NUMA node such as numa:0, or CPUs such as 0-3,8"
            ) from None
    if not chosen or not chosen <= allowed:
        missing = sorted(chosen - allowed)
        raise ConfigError(
            f"{_OPTION}={text}: this process may not use "
            + (f"the CPU {missing[0]}" if missing else "any CPU of that node")
            + f", only {describe_cpus(allowed)}"
        )
    return tuple(sorted(chosen))


def parse_cpu_list(text: str) -> set[int]:
    """Return the numbers of a list such as ``0-3,8``, as the kernel writes it. Raise `ValueError`."""
    cpus: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(text)
        cpus.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return cpus


def describe_cpus(cpus: Iterable[int]) -> str:
    """Return a list of CPUs as the kernel writes it."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def first_threads(cpus: Collection[int]) -> tuple[int, ...]:
    """Return one CPU of each core among these, ascending: two threads of one core are not faster than one."""
    cores: dict[str, int] = {}
    for cpu in sorted(cpus):
        cores.setdefault(_read(_SIBLINGS.format(cpu)) or str(cpu), cpu)
    return tuple(cores.values())


def bind_thread(cpus: Collection[int]) -> None:
    """Let this thread, and those that it starts, run on these CPUs only. Raise `ConfigError`."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise ConfigError(
            f"{_OPTION}: the system refuses the CPUs {describe_cpus(cpus)}: {error.strerror}"
        ) from error


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
