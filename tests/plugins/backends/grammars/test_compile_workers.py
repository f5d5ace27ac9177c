"""Worker processes that compile. Their tasks here are Python expressions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fllm import BackendUnavailable, RequestError
from fllm_backends.grammars.compile_workers import CompileWorkers

PID = "str(__import__('os').getpid()).encode()"
FOR_EVER = "any(iter(int, 1))"


@pytest.fixture
def workers() -> Iterator[CompileWorkers[str, str]]:
    made: CompileWorkers[str, str] = CompileWorkers(eval, lambda: "eval")
    yield made
    made.stop()


def wait_until_ready(workers: CompileWorkers[str, str], count: int) -> set[int]:
    """Return the process ids of the workers that are ready, once there are this many."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with workers._lock:
            if len(workers._ready) >= count:
                return {worker._process.pid for worker in workers._ready if worker._process}
        time.sleep(0.01)
    raise AssertionError(f"there are no {count} workers ready")


def test_a_spare_worker_takes_the_place_of_one_that_is_killed(workers: CompileWorkers[str, str]) -> None:
    workers.run("b''")
    ready = wait_until_ready(workers, 2)
    with pytest.raises(RequestError, match="takes more than"):
        workers.run(FOR_EVER)
    assert int(workers.run(PID)) in ready
    assert len(wait_until_ready(workers, 2)) == 2


def test_tasks_at_the_same_time_run_in_different_workers(workers: CompileWorkers[str, str]) -> None:
    workers.run("b''")
    wait_until_ready(workers, 2)
    slow = threading.Thread(target=workers.run, args=("__import__('time').sleep(0.5) or b''",))
    slow.start()
    while len(workers._ready) > 1:
        time.sleep(0.001)
    workers.run("b''")
    assert slow.is_alive()
    slow.join()


def test_workers_that_are_stopped_leave_no_process(workers: CompileWorkers[str, str]) -> None:
    workers.run("b''")
    workers.stop()
    end = time.monotonic() + 30
    while workers._starting and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(BackendUnavailable):
        workers.run("b''")
    assert not any(worker.is_running for worker in workers._workers)


def test_a_worker_that_starts_while_all_are_stopped_ends(workers: CompileWorkers[str, str]) -> None:
    worker = workers._take()
    workers.stop()
    worker.start()
    workers._give_back(worker)
    assert not worker.is_running


def test_a_task_succeeds_though_no_thread_is_left_for_a_spare_worker(
    workers: CompileWorkers[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert workers.run("b'done'") == b"done"
    workers.run("b''")
    wait_until_ready(workers, 2)
