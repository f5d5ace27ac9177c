"""A lock that serves clients in turn."""

from __future__ import annotations

import asyncio

from fllm_api.limits.round_robin_lock import RoundRobinLock


def test_clients_are_served_in_turn_and_cancelled_requests_are_skipped() -> None:
    served: list[str] = []

    async def go() -> None:
        lock = RoundRobinLock()

        async def serve(client: str) -> None:
            async with lock.acquire(client):
                served.append(client)
                await asyncio.sleep(0)

        async with lock.acquire("first"):
            tasks = [asyncio.create_task(serve(client)) for client in ("a", "a", "a", "b", "c", "b")]
            await asyncio.sleep(0)
            tasks[4].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        async with lock.acquire("last"):
            served.append("last")

    asyncio.run(asyncio.wait_for(go(), 30))
    assert served == ["a", "b", "a", "b", "a", "last"]


def test_a_request_that_is_cancelled_when_it_gets_the_lock_releases_it() -> None:
    async def go() -> None:
        lock = RoundRobinLock()

        async def serve() -> None:
            async with lock.acquire("a"):
                raise AssertionError("it was cancelled")

        async with lock.acquire("first"):
            task = asyncio.create_task(serve())
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        async with lock.acquire("next"):
            pass

    asyncio.run(asyncio.wait_for(go(), 30))
