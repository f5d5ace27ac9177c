"""The child process for tasks that may never end. Its tasks here are Python expressions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from fllm.concurrency.cpu_time import thread_seconds
from fllm.errors import BackendError, RequestError
from fllm.sandbox import ResourceLimits, Worker

FOR_EVER = "any(iter(int, 1))"
LOOP = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
COMPUTES = f"exec({LOOP!r}) or b'done'"
SLEEPS = "__import__('time').sleep(%s) or b'done'"


LIMITS = ResourceLimits(
    subject="the text",
    activity="reading",
    cpu_seconds=0.8,
    wall_seconds=120.0,
    memory=256 << 20,
    output=1000,
)
HASTY = replace(LIMITS, wall_seconds=0.2)


@pytest.fixture
def start() -> Iterator[Callable[[ResourceLimits], Worker[str, str]]]:
    started: list[Worker[str, str]] = []

    def start(limits: ResourceLimits) -> Worker[str, str]:
        started.append(Worker(eval, lambda: "eval", limits))
        return started[-1]

    yield start
    for worker in started:
        worker.stop()


@pytest.fixture
def child(start: Callable[[ResourceLimits], Worker[str, str]]) -> Worker[str, str]:
    return start(LIMITS)


def test_results_and_errors_are_returned(child: Worker[str, str]) -> None:
    assert child.run("b'x' * 3") == b"xxx"
    with pytest.raises(RequestError, match="too complex"):
        child.run("exec('raise RecursionError')")
    with pytest.raises(BackendError, match="division by zero"):
        child.run("1 / 0")
    assert child.run("b'y'") == b"y"


def test_a_child_that_computes_forever_is_killed_and_replaced(child: Worker[str, str]) -> None:
    with pytest.raises(RequestError, match=r"reading it takes more than 0\.8 s"):
        child.run(FOR_EVER)
    assert child.run("b'next'") == b"next"


def test_waiting_without_computing_does_not_count_as_cpu_time(child: Worker[str, str]) -> None:
    assert child.run(SLEEPS % 1.1) == b"done"


def test_cpu_time_of_a_task_counts_for_the_calling_thread(child: Worker[str, str]) -> None:
    def used(task: str) -> float:
        start = thread_seconds()
        with suppress(RequestError):
            child.run(task)
        return thread_seconds() - start

    child.run("b'started'")
    assert used(SLEEPS % 0.3) < 0.25
    assert 0.5 <= used(COMPUTES) < 0.8
    assert used(FOR_EVER) >= LIMITS.cpu_seconds


def test_every_task_has_its_own_time_limit(child: Worker[str, str]) -> None:
    assert [child.run(COMPUTES) for _ in range(3)] == [b"done"] * 3


def test_a_child_that_waits_forever_is_killed(start: Callable[[ResourceLimits], Worker[str, str]]) -> None:
    child = start(HASTY)
    with pytest.raises(RequestError, match=r"more than 0\.2 s"):
        child.run(SLEEPS % 600)
    assert child.run("b'next'") == b"next"


def test_a_child_that_does_not_receive_is_killed(start: Callable[[ResourceLimits], Worker[str, str]]) -> None:
    child = start(HASTY)
    pid = int(child.run("str(__import__('os').getpid()).encode()"))
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(RequestError, match=r"more than 0\.2 s"):
        child.run("b'x'" + " " * 10_000_000)
    assert child.run("b'next'") == b"next"


def test_a_task_that_takes_too_much_memory_is_rejected_and_its_memory_is_freed(
    child: Worker[str, str],
) -> None:
    with pytest.raises(RequestError, match="reading it takes too much memory"):
        child.run("b'x' * (1 << 30)")
    assert child.run("b'x' * 1000") == b"x" * 1000


def test_a_result_that_is_too_large_is_rejected(child: Worker[str, str]) -> None:
    with pytest.raises(RequestError, match="too complex: reading it produces 1001 bytes"):
        child.run("b'x' * 1001")


ESCAPED = {
    "no message": r"os.write(fd, b'\0\0\0\3abc')",
    "a length beyond all limits": r"os.write(fd, b'\xff' * 100)",
    "half of one": r"os.write(fd, b'\0\0\0\3a') and time.sleep(600)",
    "it is ready once more": r"os.write(fd, b'\0\0\0\x0c\x81\xa4type\xa5Ready')",
    "it hangs up": "os.close(fd) or time.sleep(600)",
}
TAKE_OVER = """
import os, stat, time
fd = max(fd for fd in map(int, os.listdir('/proc/self/fd')) if os.path.exists(f'/proc/self/fd/{fd}')
         and stat.S_ISSOCK(os.fstat(fd).st_mode))
"""


@pytest.mark.parametrize("how", ESCAPED)
def test_a_child_that_was_taken_over_can_only_end_itself(
    how: str, start: Callable[[ResourceLimits], Worker[str, str]]
) -> None:
    child = start(replace(LIMITS, wall_seconds=1.0))
    with pytest.raises(RequestError, match="too complex"):
        child.run(f"exec({TAKE_OVER + ESCAPED[how]!r}, {{}})")
    assert child.run("b'next'") == b"next"


def test_a_child_inherits_no_secrets(child: Worker[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert b"PATH" in (names := child.run("' '.join(__import__('os').environ).encode()"))
    assert b"HF_TOKEN" not in names


def test_a_child_writes_no_file_and_opens_none_where_it_may_not(
    start: Callable[[ResourceLimits], Worker[str, str]], tmp_path: Path
) -> None:
    write = f"open({str(tmp_path / 'file')!r}, 'w').write('x' * 10_000)"
    with pytest.raises(BackendError, match="File too large"):
        start(LIMITS).run(write)
    with pytest.raises(BackendError, match="Too many open files"):
        start(replace(LIMITS, allow_files=False)).run(write)


def test_a_child_that_dies_is_replaced(child: Worker[str, str]) -> None:
    with pytest.raises(RequestError, match="memory"):
        child.run("__import__('os').abort()")
    assert child.run("b'next'") == b"next"


WITHOUT_PROC = """
import logging, sys
from fllm.errors import RequestError
from fllm.sandbox import ResourceLimits, Worker

logging.basicConfig(format="%(message)s")
limits = ResourceLimits(
    subject="it", activity="reading", cpu_seconds=5.0, wall_seconds=60.0, memory=64 << 20, output=99
)
worker = Worker(eval, lambda: "eval", limits)
print(worker.run("b'%d entries' % len(__import__('os').listdir('/proc'))").decode())
try:
    worker.run("b'x' * (1 << 30)")
except RequestError as error:
    print(error)
worker.stop()
"""


def test_tasks_run_within_limits_where_proc_is_not_mounted() -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "-"]
    if subprocess.run([*hidden, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    done = subprocess.run(
        [*hidden, sys.executable, "-c", WITHOUT_PROC], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["0 entries", "it is too complex: reading it takes too much memory"]
