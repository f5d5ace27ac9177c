from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest
from support.fake_runner import FakeRunner, expected_tokens

from fllm.batching import BatchedBackend, BatchLimits, Row
from fllm.config import BackendConfig
from fllm.errors import (
    BackendError,
    BackendUnavailable,
    ConfigError,
    ContextTooLong,
    ModelError,
    RequestError,
)
from fllm.interfaces import BackendContext
from fllm.values import GenerateRequest, ModelCard, Progress, SamplingParams

CONTEXT = BackendContext()


def backend(runner: FakeRunner, context: BackendContext = CONTEXT, **config: object) -> BatchedBackend:
    return BatchedBackend(
        runner,
        BackendConfig(model="m", **config),  # type: ignore[arg-type]
        context,
        limits=BatchLimits(max_num_seqs=16, max_num_batched_tokens=64, block_size=4),
    )


@asynccontextmanager
async def running(runner: FakeRunner, **config: object) -> AsyncGenerator[BatchedBackend]:
    engine = backend(runner, **config)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def request(
    request_id: str = "r", token_ids: Sequence[int] = (1, 2, 3), **sampling: object
) -> GenerateRequest:
    return GenerateRequest(
        request_id, list(token_ids), SamplingParams(**{"max_tokens": 5, "seed": 0, **sampling})
    )  # type: ignore[arg-type]


async def tokens(engine: BatchedBackend, asked: GenerateRequest) -> list[int]:
    return [token async for step in engine.generate(asked) for token in step.token_ids]


async def idle(engine: BatchedBackend) -> None:
    """Wait until no sequence is left."""
    while (status := await engine.status()).running or status.waiting:
        await asyncio.sleep(0)
    assert status.kv_blocks_used == 0


class Gate:
    """Lets some batches pass, and stops the engine before the next until it is opened."""

    def __init__(self, passing: int = 0) -> None:
        self.passing = passing
        self.arrived = threading.Event()
        self.open = threading.Event()

    def __call__(self, rows: Sequence[Row]) -> None:
        self.passing -= 1
        if self.passing < 0:
            self.arrived.set()
            assert self.open.wait(10)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.arrived.wait, 10)


def scenario(run: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """An asynchronous test."""

    def test() -> None:
        asyncio.run(run())  # type: ignore[arg-type]

    test.__name__ = run.__name__
    return test


@scenario
async def test_the_card_has_the_limits_of_model_and_cache():
    seen: list[Progress] = []
    engine = backend(FakeRunner(blocks=8), BackendContext(progress=seen.append), max_num_seqs=3)
    card = await engine.start()
    await engine.stop()
    assert card.max_model_len == 32
    assert card.runtime == {
        "vocab_size": 11,
        "num_speculative_tokens": 0,
        "kv_cache_blocks": 8,
        "block_size": 4,
        "max_num_seqs": 3,
        "max_num_batched_tokens": 64,
        "enable_prefix_caching": True,
    }
    assert seen == [Progress("hashing", 1, 1)]


@scenario
async def test_only_the_last_output_has_a_finish_reason():
    async with running(FakeRunner()) as engine:
        steps = [step async for step in engine.generate(request())]
    assert [token for step in steps for token in step.token_ids] == expected_tokens(request(), 0)
    *before, last = (step.finish_reason for step in steps)  # however many were joined
    assert last == "length"
    assert not any(before)


@scenario
async def test_the_output_of_200_concurrent_requests_is_that_of_each_alone():
    asked = [
        request(f"r{i}", [1, 2, i % 11, *[3] * (i % 7)], seed=i, max_tokens=1 + i % 9) for i in range(200)
    ]
    async with running(FakeRunner(blocks=20)) as engine:
        answers = await asyncio.gather(*[tokens(engine, each) for each in asked])
        await idle(engine)
        assert (await engine.status()).preemptions > 0
    assert answers == [expected_tokens(each, each.sampling.seed or 0, max_model_len=80) for each in asked]


@scenario
async def test_closing_the_generator_frees_the_sequence_before_the_next_step():
    gate = Gate(passing=1)
    runner = FakeRunner(hook=gate)
    async with running(runner) as engine:
        async with aclosing(engine.generate(request(max_tokens=200))) as steps:
            await anext(steps)
            await gate.reached()
        gate.open.set()
        await idle(engine)
    assert len(runner.batches) == 2


@scenario
async def test_a_cancelled_request_is_freed_though_it_is_still_waiting():
    gate = Gate()
    async with running(FakeRunner(hook=gate), max_num_seqs=1) as engine:
        first = asyncio.create_task(tokens(engine, request("first")))
        await gate.reached()
        second = asyncio.create_task(tokens(engine, request("second")))
        await asyncio.sleep(0)
        second.cancel()
        gate.open.set()
        assert await first == expected_tokens(request(), 0)
        with pytest.raises(asyncio.CancelledError):
            await second
        await idle(engine)


@scenario
async def test_a_failing_batch_ends_its_sequences_and_nothing_else():
    def fail(rows: Sequence[Row]) -> None:
        if any(len(row.token_ids) == row.prompt_length == 9 for row in rows):
            raise RuntimeError("out of memory")

    async with running(FakeRunner(hook=fail)) as engine:
        with pytest.raises(BackendError, match="RuntimeError: out of memory"):
            await tokens(engine, request(token_ids=[1] * 9))
        await idle(engine)
        shorter = request(token_ids=[1] * 8)
        assert await tokens(engine, shorter) == expected_tokens(shorter, 0)


def test_a_failing_batch_is_logged_with_the_names_of_its_sequences(caplog: pytest.LogCaptureFixture):
    def fail(rows: Sequence[Row]) -> None:
        raise RuntimeError("no")

    async def run() -> None:
        async with running(FakeRunner(hook=fail)) as engine:
            with pytest.raises(BackendError):
                await tokens(engine, request("the-one"))

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert "the-one" in caplog.text


@scenario
async def test_stopping_ends_what_is_in_flight_and_closes_the_runner():
    gate = Gate()
    runner = FakeRunner(hook=gate)
    engine = backend(runner, max_num_seqs=1)
    await engine.start()
    flying = [asyncio.create_task(tokens(engine, request(name))) for name in ("runs", "waits")]
    await gate.reached()
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)
    gate.open.set()
    await stopping
    for result in await asyncio.gather(*flying, return_exceptions=True):
        assert isinstance(result, BackendUnavailable)
    assert runner.closed
    with pytest.raises(BackendUnavailable):
        await engine.status()
    with pytest.raises(BackendUnavailable):
        await tokens(engine, request())
    await engine.stop()


@scenario
async def test_stopping_before_the_start_does_nothing():
    threads = threading.active_count()
    await backend(FakeRunner()).stop()
    assert threading.active_count() == threads


@scenario
async def test_a_dead_engine_thread_ends_everything_as_unavailable():
    def die(rows: Sequence[Row]) -> None:
        raise SystemExit("the device is gone")

    engine = backend(FakeRunner(hook=die))
    await engine.start()
    with pytest.raises(BackendUnavailable, match="died"):
        await tokens(engine, request())
    with pytest.raises(BackendUnavailable):
        await engine.status()
    await engine.stop()


class Unloadable(FakeRunner):
    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        raise ModelError("there is no such model")


@scenario
async def test_start_raises_what_load_raises():
    engine = backend(Unloadable())
    with pytest.raises(ModelError, match="no such model"):
        await engine.start()
    with pytest.raises(BackendUnavailable):
        await engine.status()
    await engine.stop()


@scenario
async def test_a_context_longer_than_the_models_is_rejected_at_the_start():
    with pytest.raises(ConfigError, match="1001 and the model's own is 1000"):
        await backend(FakeRunner(), max_model_len=1001).start()


@scenario
async def test_invalid_prompts_are_rejected():
    async with running(FakeRunner(max_model_len=4)) as engine:
        for refused, error in (
            (request(token_ids=[]), RequestError),
            (request(token_ids=[1] * 4), ContextTooLong),
        ):
            with pytest.raises(error):
                await tokens(engine, refused)


@scenario
async def test_a_request_id_serves_one_sequence_at_a_time():
    async with running(FakeRunner()) as engine:
        async with aclosing(engine.generate(request("r"))) as steps:
            await anext(steps)
            with pytest.raises(RequestError, match="in use"):
                await tokens(engine, request("r"))
        assert await tokens(engine, request("s")) == expected_tokens(request(), 0)


async def seeds(seed: int | None) -> list[int]:
    runner = FakeRunner()
    async with running(runner, seed=seed) as engine:
        for name in "abc":
            await tokens(engine, request(name, seed=None, max_tokens=1))
        await tokens(engine, request(seed=5, max_tokens=1))
    return [row.seed for batch in runner.batches for row in batch]


@scenario
async def test_seeds_come_from_the_request_or_the_configuration_or_chance():
    given, again, chance, other = [await seeds(seed) for seed in (1, 1, None, None)]
    assert given == again
    assert len({*given, *chance, *other}) == 10
    assert given[-1] == chance[-1] == 5
