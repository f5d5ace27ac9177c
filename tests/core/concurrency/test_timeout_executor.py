"""Threads for third-party code."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable

import pytest

from fllm.concurrency.hung_threads import MAX_HUNG_OF_CLIENT
from fllm.concurrency.timeout_executor import TaskTimeout, TimeoutExecutor, TooManyHung


def run(scenario: Callable[[TimeoutExecutor], Awaitable[None]]) -> None:
    async def main() -> None:
        threads = TimeoutExecutor("test")
        await scenario(threads)
        threads.close()

    asyncio.run(main())


def test_a_thread_is_reused() -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        idents = {await threads.run(threading.get_ident, time_limit=10) for _ in range(5)}
        assert len(idents) == 1
        assert idents != {threading.get_ident()}

    run(scenario)


def test_exceptions_of_the_function_are_raised() -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0, time_limit=10)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await threads.run(lambda: next(iter(())), time_limit=10)

    run(scenario)


def test_a_thread_that_hangs_is_replaced() -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        go = threading.Event()
        with pytest.raises(TaskTimeout):
            await threads.run(go.wait, time_limit=0.05)
        assert await threads.run(lambda: 7, time_limit=10) == 7
        go.set()

    run(scenario)


def test_clients_that_make_too_many_threads_hang_get_no_more_until_the_functions_return() -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        go = threading.Event()
        for _ in range(MAX_HUNG_OF_CLIENT):
            with pytest.raises(TaskTimeout):
                await threads.run(go.wait, client="a", time_limit=0.01)
        with pytest.raises(TooManyHung):
            await threads.run(lambda: 7, client="a", time_limit=10)
        assert await threads.run(lambda: 7, client="b", time_limit=10) == 7
        go.set()
        found = None
        while found is None:
            with contextlib.suppress(TooManyHung):
                found = await threads.run(lambda: 7, client="a", time_limit=10)
            await asyncio.sleep(0.001)

    run(scenario)


def test_the_thread_of_a_cancelled_caller_runs_nothing_else_until_the_function_returns() -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        go = threading.Event()
        left = asyncio.create_task(threads.run(go.wait, time_limit=10))
        await asyncio.sleep(0.05)
        left.cancel()
        assert await threads.run(lambda: 7, time_limit=10) == 7
        go.set()

    run(scenario)
