"""``pin_threads``, and the cores that an engine uses."""

from __future__ import annotations

import os
import threading

import pytest

from fllm.config import BackendConfig
from fllm.errors import ConfigError
from fllm_backends.torch import cpu_binding, hardware
from fllm_backends.torch.cpu_binding import (
    bind_thread,
    describe_cpus,
    first_threads,
    parse_cpu_list,
    read_pin_threads,
)
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.options import read_torch_config

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads can't be bound")


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Let the process use the CPUs 0 to 3 and 8, of which 0 and 2, and 1 and 3 are threads of one core."""
    cpus = {0, 1, 2, 3, 8}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus)
    files = {
        "/sys/devices/system/node/node0/cpulist": "0-3",
        "/sys/devices/system/node/node1/cpulist": "4-8",
        "/sys/devices/system/node/node2/cpulist": "12,13",
    }
    files |= {cpu_binding._SIBLINGS.format(cpu): siblings for cpu, siblings in enumerate(["0,2", "1,3"] * 2)}
    monkeypatch.setattr(cpu_binding, "_read", lambda path: files.get(path, ""))
    return cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("off", ()),
        ("on", (0, 1, 2, 3, 8)),
        ("numa:0", (0, 1, 2, 3)),
        ("numa:1", (8,)),
        ("1-2,8", (1, 2, 8)),
        ("3", (3,)),
    ],
)
@pytest.mark.usefixtures("allowed")
def test_cpus_are_chosen_among_those_that_the_process_may_use(text: str, cpus: tuple[int, ...]) -> None:
    assert read_pin_threads(text) == cpus
    assert read_torch_config(BackendConfig(model="a/b", options={"pin_threads": text})).cpus == cpus


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("numa:2", "pin_threads=numa:2: this process may not use any CPU of that node, only 0-3,8"),
        ("numa:7", "there is no NUMA node 7 with CPUs"),
        ("2-4", "pin_threads=2-4: this process may not use the CPU 4, only 0-3,8"),
        ("", "pin_threads='': pass off, on, a NUMA node such as numa:0, or CPUs such as 0-3,8"),
        ("2-1", "pin_threads='2-1': pass off"),
        ("yes", "pin_threads='yes': pass off"),
        ("0-99999999999", "pass off"),
    ],
)
@pytest.mark.usefixtures("allowed")
def test_others_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_torch_config(BackendConfig(model="a/b", options={"pin_threads": text}))


@pytest.mark.parametrize("config", [{"local_engines": 2}, {"tensor_parallel_size": 2}])
def test_processes_never_share_cores(config: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="2 processes would compute on the same cores"):
        read_torch_config(BackendConfig(model="a/b", options={"pin_threads": "on"}, **config))


def test_lists_are_read_and_written_as_the_kernel_does() -> None:
    assert parse_cpu_list("0-3,8, 10-10") == {0, 1, 2, 3, 8, 10}
    assert describe_cpus([10, 3, 0, 1, 2, 8]) == "0-3,8,10"


@pytest.mark.usefixtures("allowed")
def test_a_core_counts_once() -> None:
    assert first_threads({3, 2, 1, 0, 8}) == (0, 1, 8)
    assert first_threads({2, 8}) == (2, 8)


def test_threads_of_kernels_have_a_core_each() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    own: list[set[int]] = []
    work = threading.Event()

    def kernel(team: object) -> None:
        if threading.current_thread().name.startswith("kernels"):
            own.append(set(os.sched_getaffinity(0)))
            work.set()
        else:
            work.wait(10)

    KernelThreads(2, (cpus[0], cpus[-1])).run(kernel, 1)
    assert own == [{cpus[-1]}]
    assert os.sched_getaffinity(0) == set(cpus)


def test_a_refused_core_is_an_error() -> None:
    with pytest.raises(ConfigError, match="pin_threads: the system refuses the CPUs 9999"):
        bind_thread({9999})


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_the_time_of_a_container_limits_the_cores(
    files: dict[str, str], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(cpu_binding, "_read", lambda path: "")
    monkeypatch.setattr(hardware, "_read", lambda path: files.get(path.removeprefix("/sys/fs/cgroup/"), ""))
    assert hardware.physical_cores() == cores


def test_pages_of_files_count_as_free_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemAvailable: 9000000 kB",
        "/sys/fs/cgroup/memory.max": "1000000",
        "/sys/fs/cgroup/memory.current": "900000",
        "/sys/fs/cgroup/memory.stat": "anon 100\nactive_file 5\ninactive_file 700000\n",
    }
    monkeypatch.setattr(hardware, "_read", lambda path: files.get(path, ""))
    assert hardware._available_memory() == 800000
