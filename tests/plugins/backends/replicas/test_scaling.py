"""Replicas are added and removed by queued tokens while requests run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from support.fake_runner import FakeRunner, expected_tokens
from support.killable_engines import Engines, KillableEngine, engines, request

from fllm import BackendUnavailable, ModelCard, UserError
from fllm.config import Autoscaling
from fllm_backends.replicas import scaling


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "INTERVAL", 0.01)


def slow_runner() -> FakeRunner:
    return FakeRunner(blocks=4000, block_size=4, hook=lambda _: time.sleep(0.002))


def held_runner(released: threading.Event) -> FakeRunner:
    """Return a runner whose steps take 50 ms until it is released."""
    return FakeRunner(blocks=4000, block_size=4, hook=lambda _: released.wait(0.05))


@asynccontextmanager
async def scaled(
    least: int, most: int, runner: Callable[[], FakeRunner] = slow_runner, **config: float
) -> AsyncGenerator[Engines]:
    wanted = Autoscaling(
        **{
            "min_replicas": least,
            "max_replicas": most,
            "target_queued_tokens": 40,
            "upscale_delay": 0.05,
            "downscale_delay": 0.1,
            **config,
        }  # type: ignore[arg-type]
    )
    async with engines(max(least, 1), runner, autoscaling=wanted) as running:
        yield running


def names(running: Engines) -> list[str]:
    return [each.name for each in running.backend.fleet if not each.draining]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


def test_queued_tokens_add_replicas_up_to_the_maximum_and_their_end_removes_them() -> None:
    released = threading.Event()

    async def run() -> None:
        async with scaled(1, 3, partial(held_runner, released), downscale_delay=0.5) as running:
            requests = [request(f"r{n}", [n, 2, 3], max_tokens=200) for n in range(10)]
            tasks = [asyncio.create_task(running.tokens(each)) for each in requests]
            await until(lambda: len(names(running)) == 3)
            started = [running[number] for number in range(3)]
            others = [request(f"s{n}", [9, n], max_tokens=200) for n in range(10)]
            more = [asyncio.create_task(running.tokens(each)) for each in others]
            await until(lambda: all(engine.requests for engine in started))
            released.set()
            for each, task in zip(requests, tasks, strict=True):
                assert await task == expected_tokens(each, 0)
            await asyncio.gather(*more)
            await until(lambda: len(running.backend.fleet) == 1)
            await asyncio.sleep(0.2)
            assert len(names(running)) == 1

    asyncio.run(run())


def test_a_replica_that_is_resumed_while_it_is_drained_stays_or_is_drained_anew() -> None:
    removals = list[str]()

    async def run() -> None:
        async with engines(2) as running:
            fleet = running.backend.fleet
            config = Autoscaling(min_replicas=1, max_replicas=2, downscale_delay=0)
            outputs = [running.backend.generate(request(f"r{n}", max_tokens=900)) for n in range(2)]
            for each in outputs:
                await anext(each)
            removing = scaling.Scaling(fleet, config, 2)

            async def remove(name: str) -> None:
                removals.append(name)

            fleet.remove = remove  # type: ignore[assignment,method-assign]
            for _ in range(3):
                removing._step(0.0)
                await asyncio.sleep(0)
                fleet.resume(next(each.name for each in fleet if each.draining))
            removing._step(0.0)
            for each in outputs:
                await each.aclose()
            done, _ = await asyncio.wait([*removing._tasks])
            assert not [task for task in done if not task.cancelled() and task.exception()]
            assert len(removals) == 1

    asyncio.run(run())


def test_a_replica_that_is_removed_finishes_its_requests_or_is_kept() -> None:
    released = threading.Event()

    async def run() -> None:
        async with scaled(1, 2, partial(held_runner, released)) as running:
            long = [request(f"r{n}", [n, 2, 3], max_tokens=600) for n in range(4)]
            tasks = [asyncio.create_task(running.tokens(each)) for each in long]
            await until(lambda: len(names(running)) == 2)
            late, second = request("late", [5], max_tokens=600), running[1]
            tasks.append(asyncio.create_task(running.tokens(late)))
            await until(lambda: bool(second.requests))
            for task in tasks[:4]:
                task.cancel()
            await until(lambda: len(names(running)) == 1)  # one is drained
            tasks[:4] = [asyncio.create_task(running.tokens(each)) for each in long]
            released.set()
            for each, task in zip([*long, late], tasks, strict=True):
                assert await task == expected_tokens(each, 0)

    asyncio.run(run())


def test_an_idle_model_sleeps_and_requests_wait_until_it_has_started() -> None:
    async def run() -> None:
        async with scaled(0, 2) as running:
            assert await running.tokens(request("a")) == expected_tokens(request("a"), 0)
            await until(lambda: len(running.backend.fleet) == 0)
            assert (await running.backend.status()).running == 0
            results = await asyncio.gather(*(running.tokens(request(f"r{n}")) for n in range(5)))
            assert results == [expected_tokens(request("r"), 0)] * 5
            assert len(running.backend.fleet) == 1
            assert (await running.backend.status()).prefix_queries > 0

    asyncio.run(run())


def test_a_start_that_fails_ends_the_requests_that_wait_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = KillableEngine.start
    failing = True

    async def start_or_fail(engine: KillableEngine) -> ModelCard:
        if failing:
            raise UserError("the model is gone")
        return await start(engine)

    async def run() -> None:
        nonlocal failing
        failing = False
        async with scaled(0, 1) as running:
            await until(lambda: len(running.backend.fleet) == 0)
            monkeypatch.setattr(KillableEngine, "start", start_or_fail)
            failing = True
            with pytest.raises(BackendUnavailable, match="another can't be started: the model is gone"):
                await running.tokens(request("a"))
            with pytest.raises(BackendUnavailable, match="the model is gone"):
                await running.backend.status()
            failing = False
            assert await running.tokens(request("b")) == expected_tokens(request("b"), 0)
            await running.backend.status()

    asyncio.run(run())


def test_a_request_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(engine: KillableEngine) -> ModelCard:
        await asyncio.sleep(30)
        raise AssertionError

    async def run() -> None:
        async with scaled(0, 1, replica_start_timeout=0.1) as running:
            await until(lambda: len(running.backend.fleet) == 0)
            monkeypatch.setattr(KillableEngine, "start", start)
            with pytest.raises(BackendUnavailable, match="replica-0 is starting"):
                await running.tokens(request("a"))

    asyncio.run(run())
