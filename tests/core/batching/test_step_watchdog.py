"""The watchdog of the engine's steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from support.fake_runner import FakeRunner

from fllm import BackendConfig, BackendContext, BackendError, GenerateRequest, SamplingParams
from fllm.batching import BatchedBackend, Row
from fllm.batching.engine_loop import MAX_CONSECUTIVE_FAILURES
from fllm.batching.step_watchdog import StepWatchdog
from fllm.errors import BackendLost


async def run_checks(watchdog: StepWatchdog, steps: list[int | None]) -> None:
    """Check once for each step that is then running."""
    while steps:
        watchdog.start()
        watchdog.stop()


def watchdog_over(steps: list[int | None], timeout: float) -> StepWatchdog:
    return StepWatchdog(lambda: steps.pop(0), timeout)


def test_a_step_that_runs_too_long_is_a_hang() -> None:
    steps: list[int | None] = [7, 7, 7, 7]
    watchdog = watchdog_over(steps, 3.0)
    asyncio.run(run_checks(watchdog, steps))
    with pytest.raises(BackendLost, match="a step has not ended for 3 s"):
        watchdog.check()


@pytest.mark.parametrize("steps", [[1, 1, 2, 2, 3, 3, 4, 4], [None] * 9, [1, 1, None, 2, 2, None]])
def test_steps_that_end_and_an_idle_engine_are_not_hangs(steps: list[int | None]) -> None:
    watchdog = watchdog_over(steps, 2.0)
    asyncio.run(run_checks(watchdog, steps))
    watchdog.check()


async def is_alive(backend: BatchedBackend) -> bool:
    try:
        await backend.status()
    except BackendLost:
        return False
    return True


def test_the_status_of_a_hanging_runner_raises_backend_lost() -> None:
    async def scenario() -> None:
        go = threading.Event()
        runner = FakeRunner(hook=lambda rows: go.wait(30))
        backend = BatchedBackend(runner, BackendConfig(model="", engine_timeout=0.1), BackendContext())
        await backend.start()
        waiting = asyncio.create_task(
            anext(backend.generate(GenerateRequest("a", [1], SamplingParams(max_tokens=1))))
        )
        async with asyncio.timeout(20):
            while await is_alive(backend):
                await asyncio.sleep(0.01)
        go.set()
        await waiting
        await backend.stop()

    asyncio.run(scenario())


def test_a_device_on_which_every_batch_fails_is_lost() -> None:
    def fail(rows: Sequence[Row]) -> None:
        raise MemoryError

    async def scenario() -> None:
        backend = BatchedBackend(FakeRunner(hook=fail), BackendConfig(model=""), BackendContext())
        await backend.start()
        for _time in range(MAX_CONSECUTIVE_FAILURES):
            await backend.status()
            with pytest.raises(BackendError, match="MemoryError"):
                await anext(backend.generate(GenerateRequest("a", [1], SamplingParams(max_tokens=1))))
        async with asyncio.timeout(20):
            while await is_alive(backend):
                await asyncio.sleep(0.01)
        with pytest.raises(BackendLost, match="died"):
            await backend.status()
        await backend.stop()

    asyncio.run(scenario())
