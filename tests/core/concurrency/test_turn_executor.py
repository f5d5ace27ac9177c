"""Work in pieces, at which clients take turns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator

import pytest

from fllm.concurrency import turn_executor
from fllm.concurrency.turn_executor import Pieces, TurnExecutor, run_at_once

costs: list[int] = []


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every turn be one piece, and begin with no costs."""
    monkeypatch.setattr(turn_executor, "TURN_SECONDS", 1e-9)
    costs.clear()


def pieces(name: str, count: int, done: list[str]) -> Pieces[str]:
    for _ in range(count):
        done.append(name)
        yield 2
    return name


def failing() -> Pieces[None]:
    yield 3
    raise ValueError("after a piece")


def test_work_returns_its_result_and_is_charged_either_way() -> None:
    async def go() -> None:
        executor = TurnExecutor()
        assert await executor.run(pieces("a", 3, []), "client", costs.append) == "a"
        assert sum(costs) == 6
        with pytest.raises(ValueError, match="after a piece"):
            await executor.run(failing(), "client", costs.append)
        assert sum(costs) == 9

    asyncio.run(asyncio.wait_for(go(), 30))


def test_short_work_is_charged_too() -> None:
    assert run_at_once(pieces("a", 3, []), costs.append) == "a"
    with pytest.raises(ValueError, match="after a piece"):
        run_at_once(failing(), costs.append)
    assert costs == [6, 3]


def test_a_client_waits_for_one_turn_of_another_however_much_work_that_has() -> None:
    done: list[str] = []
    begin = threading.Event()

    def gate() -> Generator[int, None, None]:
        begin.wait(30)
        yield 0

    async def go() -> None:
        executor = TurnExecutor()
        work = [gate(), *(pieces("greedy", 1000, done) for _ in range(10))]
        tasks = [asyncio.create_task(executor.run(each, "greedy", costs.append)) for each in work]
        await asyncio.sleep(0)
        other = asyncio.create_task(executor.run(pieces("other", 1, done), "other", costs.append))
        await asyncio.sleep(0)
        begin.set()
        await other
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(go(), 30))
    assert done.index("other") < 1000  # on a busy machine, its thread starts late


def test_cancelled_work_ends_with_its_turn_and_that_turn_is_charged() -> None:
    entered, leave = threading.Event(), threading.Event()

    def work() -> Pieces[None]:
        entered.set()
        leave.wait(30)
        yield 7
        yield 100

    async def go() -> None:
        executor = TurnExecutor()
        task = asyncio.create_task(executor.run(work(), "a", costs.append))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        leave.set()
        await executor.run(pieces("next", 1, []), "a", costs.append)

    asyncio.run(asyncio.wait_for(go(), 30))
    assert costs[0] == 7
    assert 100 not in costs
