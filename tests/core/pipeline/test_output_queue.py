from __future__ import annotations

import asyncio

import pytest

from fllm.pipeline.output_queue import OutputQueue


def test_a_reader_that_waits_gets_each_item_as_it_comes() -> None:
    async def go() -> list[list[int]]:
        inbox: OutputQueue[int] = OutputQueue()
        got = []
        for item in range(3):
            waiting = asyncio.create_task(inbox.get())
            await asyncio.sleep(0)
            inbox.put(item)
            got.append(await waiting)
        return got

    assert asyncio.run(go()) == [[0], [1], [2]]


def test_items_that_wait_together_leave_together() -> None:
    async def go() -> list[int]:
        inbox: OutputQueue[int] = OutputQueue()
        for item in range(3):
            inbox.put(item)
        return await inbox.get()

    assert asyncio.run(go()) == [0, 1, 2]


def test_a_failure_comes_after_the_items_before_it_and_is_the_last() -> None:
    async def go() -> None:
        inbox: OutputQueue[int] = OutputQueue()
        inbox.put(1)
        inbox.fail(ValueError("over"))
        inbox.put(2)
        assert await inbox.get() == [1]
        for _ in range(2):
            with pytest.raises(ValueError, match="over"):
                await inbox.get()

    asyncio.run(go())
