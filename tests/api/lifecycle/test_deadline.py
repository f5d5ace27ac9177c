from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fllm_api.lifecycle.deadline import Deadline


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(go())


def test_the_block_raises_the_error() -> None:
    async def go() -> None:
        deadline = Deadline()
        asyncio.get_running_loop().call_soon(deadline.expire, ValueError("over"))
        with pytest.raises(ValueError, match="over"):
            async with deadline.enforce():
                await asyncio.Event().wait()

    run(go)


def test_the_innermost_block_is_ended_and_the_outer_one_goes_on() -> None:
    async def go() -> None:
        deadline = Deadline()
        asyncio.get_running_loop().call_soon(deadline.expire, ValueError("over"))
        async with deadline.enforce():
            with pytest.raises(ValueError, match="over"):
                async with deadline.enforce():
                    await asyncio.Event().wait()
            await asyncio.sleep(0.01)

    run(go)


def test_the_outer_block_is_ended_again_once_the_inner_one_is_done() -> None:
    async def go() -> None:
        deadline = Deadline()

        async def outer() -> None:
            async with deadline.enforce():
                async with deadline.enforce():
                    pass
                deadline.expire(ValueError("over"))
                await asyncio.Event().wait()

        with pytest.raises(ValueError, match="over"):
            await outer()

    run(go)


def test_the_block_of_another_task_is_ended() -> None:
    async def go() -> None:
        deadline = Deadline()

        async def work() -> str:
            try:
                async with deadline.enforce():
                    await asyncio.Event().wait()
            except ValueError:
                await asyncio.sleep(0)
                return "handled"
            return "not expired"

        async with deadline.enforce():
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
            deadline.expire(ValueError("over"))
            assert await task == "handled"

    run(go)


def test_a_time_may_be_set_from_the_start() -> None:
    async def go() -> None:
        deadline = Deadline(asyncio.get_running_loop().time() + 0.01, ValueError("over"))
        with pytest.raises(ValueError, match="over"):
            async with deadline.enforce(), deadline.enforce():
                await asyncio.Event().wait()

    run(go)


def test_a_timeout_of_the_work_itself_stays_one() -> None:
    async def go() -> None:
        with pytest.raises(TimeoutError):
            async with Deadline().enforce():
                raise TimeoutError

    run(go)
