"""Threads for third-party code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from fllm.concurrency.hung_threads import MAX_HUNG_OF_CLIENT
from fllm.concurrency.timeout_executor import TaskTimeout, TimeoutExecutor


def run(scenario: Callable[[TimeoutExecutor], Awaitable[None]], count: int = 1) -> None:
    async def main() -> None:
        threads = TimeoutExecutor(count, "test")
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

    run(scenario)


def test_a_thread_that_hangs_is_replaced() -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        go = threading.Event()
        with pytest.raises(TaskTimeout):
            await threads.run(go.wait, time_limit=0.05)
        assert await threads.run(lambda: 7, time_limit=10) == 7
        go.set()

    run(scenario)


def test_threads_that_hang_are_counted_until_their_functions_return() -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        go = threading.Event()
        for hung in range(MAX_HUNG_OF_CLIENT):
            assert not threads.hung.too_many("a"), hung
            with pytest.raises(TaskTimeout):
                await threads.run(go.wait, client="a", time_limit=0.01)
        assert threads.hung.too_many("a")
        go.set()
        while threads.hung.too_many("a"):
            await asyncio.sleep(0.001)

    run(scenario)


def test_a_thread_that_does_not_start_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError):
                await threads.run(lambda: 7, time_limit=10)
        assert await threads.run(lambda: 7, queue_timeout=1, time_limit=10) == 7

    run(scenario)


def test_a_cancelled_caller_keeps_its_thread_busy_until_the_function_returns() -> None:
    async def scenario(threads: TimeoutExecutor) -> None:
        go = threading.Event()
        left = asyncio.create_task(threads.run(go.wait, time_limit=10))
        await asyncio.sleep(0.05)
        left.cancel()
        with pytest.raises(TimeoutError):
            await threads.run(lambda: 7, queue_timeout=0.05, time_limit=10)
        go.set()
        assert await threads.run(lambda: 7, time_limit=10) == 7

    run(scenario)
