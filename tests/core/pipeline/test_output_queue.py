from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from fllm.pipeline import output_queue
from fllm.pipeline.output_queue import OutputQueue


def test_a_waiting_reader_receives_each_item_as_it_is_put() -> None:
    async def go() -> list[list[int]]:
        queue: OutputQueue[int] = OutputQueue()
        batches = []
        for item in range(3):
            waiting = asyncio.create_task(queue.get())
            await asyncio.sleep(0)
            queue.put(item)
            batches.append(await waiting)
        return batches

    assert asyncio.run(go()) == [[0], [1], [2]]


def test_waiting_items_are_received_in_one_batch() -> None:
    async def go() -> list[int]:
        queue: OutputQueue[int] = OutputQueue()
        for item in range(3):
            queue.put(item)
        return await queue.get()

    assert asyncio.run(go()) == [0, 1, 2]


def test_a_slow_reader_receives_batches_and_other_tasks_run_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output_queue, "MAX_ITEMS", 2)
    order: list[list[int] | str] = []

    async def read(queue: OutputQueue[int]) -> None:
        with suppress(ValueError):
            while True:
                order.append(await queue.get())

    async def other() -> None:
        for _ in range(2):
            order.append("other")
            await asyncio.sleep(0)

    async def go() -> None:
        queue: OutputQueue[int] = OutputQueue()
        for item in range(5):
            queue.put(item)
        queue.fail(ValueError("over"))
        await asyncio.gather(read(queue), other())

    asyncio.run(go())
    assert order == ["other", [0, 1], "other", [2, 3], [4]]


def test_a_failure_is_raised_after_the_earlier_items_and_drops_later_ones() -> None:
    async def go() -> None:
        queue: OutputQueue[int] = OutputQueue()
        queue.put(1)
        queue.fail(ValueError("over"))
        queue.put(2)
        assert await queue.get() == [1]
        for _ in range(2):
            with pytest.raises(ValueError, match="over"):
                await queue.get()

    asyncio.run(go())


def test_the_first_failure_counts() -> None:
    async def go() -> None:
        queue: OutputQueue[int] = OutputQueue()
        queue.fail(ValueError("the cause"))
        queue.fail(ValueError("what followed"))
        await queue.get()

    with pytest.raises(ValueError, match="the cause"):
        asyncio.run(go())
