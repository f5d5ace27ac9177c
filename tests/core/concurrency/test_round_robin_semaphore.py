"""A semaphore that serves clients in turn."""

from __future__ import annotations

import asyncio

import pytest

from fllm.concurrency.round_robin_semaphore import RoundRobinSemaphore


def test_clients_are_served_in_turn_and_cancelled_requests_are_skipped() -> None:
    served: list[str] = []

    async def go() -> None:
        semaphore = RoundRobinSemaphore()

        async def serve(client: str) -> None:
            async with semaphore.hold(client):
                served.append(client)
                await asyncio.sleep(0)

        async with semaphore.hold("first"):
            tasks = [asyncio.create_task(serve(client)) for client in ("a", "a", "a", "b", "c", "b")]
            await asyncio.sleep(0)
            tasks[4].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        async with semaphore.hold("last"):
            served.append("last")

    asyncio.run(asyncio.wait_for(go(), 30))
    assert served == ["a", "b", "a", "b", "a", "last"]


def test_a_request_that_is_cancelled_when_it_gets_its_units_releases_it() -> None:
    async def go() -> None:
        semaphore = RoundRobinSemaphore()

        async def serve() -> None:
            async with semaphore.hold("a"):
                raise AssertionError("it was cancelled")

        async with semaphore.hold("first"):
            task = asyncio.create_task(serve())
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        async with semaphore.hold("next"):
            pass

    asyncio.run(asyncio.wait_for(go(), 30))


def test_a_large_request_keeps_its_turn_and_those_after_it_are_served_when_it_leaves() -> None:
    async def go() -> None:
        semaphore = RoundRobinSemaphore(4)
        served: list[str] = []

        async def serve(client: str, units: int) -> None:
            async with semaphore.hold(client, units):
                served.append(client)
                await asyncio.sleep(0.01)

        async with semaphore.hold("first", 2):
            large, small = (asyncio.create_task(serve(*each)) for each in (("large", 4), ("small", 1)))
            await asyncio.sleep(0)
            assert not served
        await asyncio.gather(large, small)
        assert served == ["large", "small"]
        async with semaphore.hold("first", 2):
            large, small = (asyncio.create_task(serve(*each)) for each in (("large", 4), ("small", 1)))
            await asyncio.sleep(0)
            large.cancel()
            await small
        assert served == ["large", "small", "small"]
        assert semaphore.free == 4
        with pytest.raises(ValueError, match="5 units of 4"):
            await semaphore.acquire("greedy", 5)

    asyncio.run(asyncio.wait_for(go(), 30))


def test_with_dynamic_shares_a_client_gets_half_and_delays_no_other() -> None:
    async def go() -> None:
        semaphore = RoundRobinSemaphore(12, dynamic_shares=True)
        assert [semaphore.try_acquire("a", 3) for _ in range(3)] == [True, True, False]
        waiting = asyncio.create_task(semaphore.acquire("a", 3))
        await asyncio.sleep(0)
        assert semaphore.waiting("a") == 1
        assert [semaphore.try_acquire("b", 1) for _ in range(4)] == [True, True, True, False]
        assert semaphore.try_acquire("c", 3), "the first request of a client needs only free units"
        assert not semaphore.try_acquire("d", 1)
        semaphore.release("c", 3)
        semaphore.release("b", 3)
        assert not waiting.done(), "it would hold 9 of 12"
        semaphore.release("a", 3)
        await waiting
        assert (semaphore.free, semaphore.waiting("a")) == (6, 0)

    asyncio.run(asyncio.wait_for(go(), 30))


def test_requests_that_leave_do_not_count_as_waiting() -> None:
    async def go() -> None:
        semaphore = RoundRobinSemaphore()
        async with semaphore.hold("first"):
            tasks = [asyncio.create_task(semaphore.acquire("a")) for _ in range(4)]
            await asyncio.sleep(0)
            for task in tasks[:0:-1]:
                task.cancel()
            await asyncio.sleep(0)
            assert semaphore.waiting("a") == 1
            tasks[0].cancel()
            await asyncio.sleep(0)
            assert semaphore.waiting("a") == 0
        assert semaphore.try_acquire("a")

    asyncio.run(asyncio.wait_for(go(), 30))
