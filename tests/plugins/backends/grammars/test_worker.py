"""The child process for work that may never end. Its work here is Python, evaluated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fllm.errors import BackendError, RequestError
from fllm_backends.grammars import worker
from fllm_backends.grammars.worker import Worker

FOR_EVER = "any(iter(int, 1))"
LOOP = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
COMPUTES = f"exec({LOOP!r}) or b'done'"
SLEEPS = "__import__('time').sleep(%s) or b'done'"


@pytest.fixture
def child() -> Iterator[Worker[str, str]]:
    made: Worker[str, str] = Worker(eval, lambda: "eval")
    yield made
    made.stop()


def test_work_is_done_and_what_it_raises_is_told(child: Worker[str, str]) -> None:
    assert child.do("b'x' * 3") == b"xxx"
    with pytest.raises(RequestError, match="too complex"):
        child.do("exec('raise RecursionError')")
    with pytest.raises(BackendError, match="division by zero"):
        child.do("1 / 0")
    assert child.do("b'y'") == b"y"


def test_who_computes_for_ever_is_ended_and_another_takes_its_place(child: Worker[str, str]) -> None:
    with pytest.raises(RequestError, match=f"more than {worker.CPU_SECONDS} s"):
        child.do(FOR_EVER)
    assert child.do("b'next'") == b"next"


def test_who_waits_for_others_is_not_ended_for_it(child: Worker[str, str]) -> None:
    assert child.do(SLEEPS % (worker.CPU_SECONDS + 0.3)) == b"done"


def test_every_piece_of_work_has_the_time_for_itself(child: Worker[str, str]) -> None:
    assert [child.do(COMPUTES) for _ in range(3)] == [b"done"] * 3


def test_who_waits_for_ever_is_ended(child: Worker[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "WALL_SECONDS", 0.2)
    with pytest.raises(RequestError, match=r"more than 0\.2 s"):
        child.do(SLEEPS % 600)
    monkeypatch.undo()
    assert child.do("b'next'") == b"next"


def test_who_dies_otherwise_is_replaced(child: Worker[str, str]) -> None:
    with pytest.raises(RequestError, match="memory"):
        child.do("__import__('os').abort()")
    assert child.do("b'next'") == b"next"
